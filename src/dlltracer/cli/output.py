"""Writes our text to its place, and decides the exit status of the command.

Everything that the commands print goes through here. A target that is a terminal escapes what does not print, whatever
made the text: escape sequences and direction marks of foreign names do not reach it. A file or a pipe gets the format
as it is defined: `--format lines` has names as they are; all other formats escape them by their own rules.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from ..errors import DlltracerError
from ..model.screen import USUAL, Screen, escape, escape_for, is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import TextIOWrapper
    from typing import NoReturn

    from rich.text import Text

    from ..report.drawing import Line, Styled


class CommandFailed(DlltracerError):
    """A command cannot do what it was asked for; the text is one line."""


class StreamTarget:
    """One of our standard streams; `None` for one that is closed, where nothing is written."""

    def __init__(self, stream: TextIOWrapper | None) -> None:
        self.stream = stream

    @property
    def is_terminal(self) -> bool:
        return is_terminal(self.stream)

    def write(self, text: str) -> None:
        """Write the text. A reader that went away is no error: it has seen what it wanted."""
        if self.stream is None:
            return
        text = escape_for(self.stream, text)
        with forgiving_pipe(self.stream):
            self.stream.reconfigure(errors=_errors_for(text, self.stream.encoding))
            self.stream.write(text)
            self.stream.flush()

    def discard(self) -> None:
        """Nothing was prepared."""


class DirectTarget:
    """A fifo, a terminal, a device, or a file in a folder where no other file can be made: opened now, written late."""

    def __init__(self, path: str) -> None:
        self._fd: int | None = os.open(path, os.O_WRONLY)
        self.is_terminal = os.isatty(self._fd)

    def write(self, text: str) -> None:
        """Write the text, in the place of what a file had. Raises `OSError`."""
        assert self._fd is not None
        fd, self._fd = self._fd, None
        with open(fd, "w", encoding="utf-8", errors=_errors_for(text, "utf-8"), newline="\n") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.ftruncate(fd, 0)
            file.write(escape_for(file, text))

    def discard(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class FileTarget:
    """A file that appears, or changes, all at once: written beside its place, then renamed."""

    is_terminal = False

    def __init__(self, path: str, existing: os.stat_result | None, written_name: str | None = None) -> None:
        self._path = path
        self._written_name = written_name
        from ..host.scratch import create_file

        folder, name = os.path.split(path)
        self._fd, self._part = create_file(folder, f".{name[:64]}.", ".part")
        self._open = True
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                if existing is None:
                    os.fchmod(self._fd, 0o666 & ~_umask())
                else:
                    os.fchmod(self._fd, stat.S_IMODE(existing.st_mode))
                    os.fchown(self._fd, existing.st_uid, existing.st_gid)

    def write(self, text: str) -> None:
        """Write the text and put it into its place. Raises `OSError`, and leaves what was there."""
        self._open = False
        try:
            with open(self._fd, "w", encoding="utf-8", errors=_errors_for(text, "utf-8"), newline="\n") as file:
                file.write(text)
            os.replace(self._part, self._path)
        except BaseException:
            os.unlink(self._part)
            raise
        if self._written_name is not None:
            say_written(self._written_name)

    def discard(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)
            os.unlink(self._part)


Target = StreamTarget | DirectTarget | FileTarget


_NOT_WRITTEN = frozenset({
    ".pdf", ".ps", ".doc", ".docx", ".odt", ".rtf", ".tex", ".epub", ".ppt", ".pptx", ".xls", ".xlsx", ".ods", ".csv",
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".svg", ".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".tar",
    ".yaml", ".yml", ".toml", ".ini", ".py", ".pyc", ".so", ".pyd", ".dll", ".dylib", ".exe", ".whl", ".c", ".h",
})  # fmt: skip
"""Endings of files that no report of ours is. Any other ending is part of a name: mktemp makes some."""


def open_target(output: str | None, *, is_quiet: bool = False) -> Target:
    """Make sure that the report can be written, without touching what is there. `None` is stderr, "-" stdout.

    A regular file is named on stderr when it is written, unless `is_quiet`. Raises `CommandFailed` when it cannot be
    written, or when its name promises what we do not write (x.pdf).
    """
    if output is None or output == "-":
        return StreamTarget(_stream(2 if output is None else 1))
    ending = os.path.splitext(output)[1].lower()
    if ending in _NOT_WRITTEN:
        raise CommandFailed(
            f"{output}: dlltracer writes no {ending} files; a page for a browser is .html, Markdown .md, text .txt"
        )
    try:
        return _open_path(output, None if is_quiet else output)
    except OSError as error:
        raise CommandFailed(f"cannot write {output}: {error.strerror or error}") from error


def _open_path(output: str, written_name: str | None) -> Target:
    try:
        existing = os.stat(output)
    except FileNotFoundError:
        return FileTarget(os.path.realpath(output), None, written_name)
    for fd in (1, 2):
        # /dev/stdout may be a regular file, which the program writes to as well: it must be neither replaced nor
        # opened a second time, with a position of its own.
        with contextlib.suppress(OSError):
            # What is no file has no number on Windows: NUL would be every pipe.
            if existing.st_ino and os.path.samestat(os.fstat(fd), existing):
                return StreamTarget(_stream(fd))
    if not stat.S_ISREG(existing.st_mode):
        return DirectTarget(output)
    if not os.access(output, os.W_OK):
        raise PermissionError(13, "Permission denied")
    try:
        return FileTarget(os.path.realpath(output), existing, written_name)
    except PermissionError:
        return DirectTarget(output)


def _stream(fd: int) -> TextIOWrapper | None:
    stream: TextIOWrapper | None = sys.stdout if fd == 1 else sys.stderr  # type: ignore[assignment]
    return stream


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def say(text: str, *, err: bool = False) -> None:
    """Write lines on stdout, or on stderr: the `print` of the commands.

    Raises `OSError` where stdout takes nothing. A message that stderr does not take is lost: there is no other place to
    say it, and the status is still that of the program, or of what the message is about.
    """
    with contextlib.suppress(*([OSError] if err else [])):
        StreamTarget(_stream(2 if err else 1)).write(text)


def say_written(name: str) -> None:
    """Say on stderr which file was written."""
    say(f"wrote {escape(name)}\n", err=True)


def is_stderr_terminal() -> bool:
    """Return whether somebody reads what we write on stderr."""
    return is_terminal(_stream(2))


def write_styled(target: Target, render: Callable[[bool], Styled]) -> None:
    """Write a styled text with the colours that the target takes. Raises `OSError`.

    `render` gets whether the target lacks the characters that draw a tree.
    """
    stream = target.stream if isinstance(target, StreamTarget) else None
    text = render(lacks_drawing(target))
    colour = colour_of(target.is_terminal, dict(os.environ)) if stream is not None else Colour.NONE
    if stream is None or colour == Colour.NONE:
        target.write(text.plain)
        return
    from rich.console import Console

    with forgiving_pipe(stream):
        stream.reconfigure(errors="backslashreplace")
        console = Console(
            file=stream, force_terminal=True, color_system="standard" if colour == Colour.FORCED else "auto",
            highlight=False, markup=False, emoji=False, soft_wrap=True,
        )  # fmt: skip
        console.print(to_text(text.lines), end="", no_wrap=True, overflow="ignore", crop=False)
        stream.flush()


def to_text(lines: Iterable[Line]) -> Text:
    """Return the lines as text of rich, whose escape sequences are ours alone."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ignore")
    for line in lines:
        for piece, style in line:
            text.append(escape(piece), style)
        text.append("\n")
    return text


def screen_of(target: Target, folder: str = "") -> Screen:
    """Return what a text for people has to fit on.

    Arguments: `folder`, the current folder of the program that the text is about; empty for our own.
    """
    from ..host.screen import screen_here

    has_links = target.is_terminal and shows_links(dict(os.environ))
    return screen_here(
        width=USUAL if isinstance(target, FileTarget) else None, is_ascii=lacks_drawing(target),
        has_marks=target.is_terminal, has_links=has_links, folder=folder,
    )  # fmt: skip


_OLDEST_VTE = 5000
"""VTE_VERSION since which terminals of GNOME know hyperlinks; older ones show their escape sequences as text."""


def shows_links(environment: dict[str, str]) -> bool:
    """Return whether a terminal knows hyperlinks (OSC 8), or passes over them as it should over any OSC sequence."""
    if environment.get("NO_COLOR") or environment.get("TERM", "dumb") in ("dumb", "linux", ""):
        return False
    version = environment.get("VTE_VERSION", "")
    return not (version.isdigit() and int(version) < _OLDEST_VTE)


def table_width(target: Target) -> int:
    """Return the characters that a line of a table may have: those of the terminal, else of a usual page."""
    import shutil

    return shutil.get_terminal_size((_PAGE_WIDTH, 24)).columns if target.is_terminal else _PAGE_WIDTH


_PAGE_WIDTH = 110


def lacks_drawing(target: Target) -> bool:
    """Return whether the target lacks the characters that draw a tree: a stream of Windows' old code pages does.

    A terminal does where the locale is "C": Python writes UTF-8 there all the same (PEP 540).
    """
    stream = target.stream if isinstance(target, StreamTarget) else None
    if stream is None:
        return False
    return is_ascii_locale(dict(os.environ)) or not encodes("\u251c\u2514\u2502\u2500…·", stream.encoding)


def is_ascii_locale(environment: dict[str, str]) -> bool:
    """Return whether the locale of a terminal is "C" (locale(7)): LC_ALL, else LC_CTYPE, else LANG.

    Where nothing but LANG=C is set, Python itself has set LC_CTYPE to C.UTF-8 (PEP 538): that is passed over.
    """
    if environment.get("LC_CTYPE") == "C.UTF-8" and environment.get("LANG") in ("C", "POSIX"):
        environment = {**environment, "LC_CTYPE": ""}
    names = filter(None, map(environment.get, ("LC_ALL", "LC_CTYPE", "LANG")))
    return next(names, "") in ("C", "POSIX")


class Colour:
    """The choice whether to write styles: what `colour_of` returns."""

    NONE = "none"
    TERMINAL = "terminal"
    FORCED = "forced"


def colour_of(is_terminal: bool, environment: dict[str, str]) -> str:
    """NO_COLOR (no-color.org) wins over FORCE_COLOR, which wins over what the stream is. Empty means not set."""
    if environment.get("NO_COLOR"):
        return Colour.NONE
    if environment.get("FORCE_COLOR"):
        return Colour.FORCED
    return Colour.TERMINAL if is_terminal and environment.get("TERM") != "dumb" else Colour.NONE


def _errors_for(text: str, encoding: str | None) -> str:
    """Return how to write what the encoding lacks: bytes of a path that are no text as they are, if all the rest fits.

    Else as escapes. Names of Windows are any 16-bit numbers, so a recording may have halves of characters (U+D800)
    that are no byte of a path: PEP 383 knows U+DC80 to U+DCFF only.
    """
    return "surrogateescape" if encodes(text, encoding, "surrogateescape") else "backslashreplace"


def encodes(text: str, encoding: str | None, errors: str = "strict") -> bool:
    """Return whether the encoding has all the characters."""
    try:
        text.encode(encoding or "ascii", errors)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@contextlib.contextmanager
def forgiving_pipe(stream: TextIOWrapper) -> Iterator[None]:
    """Pass over a broken pipe. Any other `OSError` is raised, a full disk for example.

    In both cases what the stream still holds goes nowhere: the interpreter would meet the error again at its end, when
    it flushes the stream, and would leave with status 120.
    """
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise


def say_annotations(choice: bool | None, render: Callable[[str], str], *, inside_line: bool = False) -> None:
    """Write them on stderr, which the runner reads as well as stdout, and which no other program is fed with.

    Arguments:
        choice: of the option; `None` leaves it to the environment.
        render: makes them, given the folder of the checkout.
        inside_line: something without an end of line may stand there.
    """
    if not (os.environ.get("GITHUB_ACTIONS") == "true" if choice is None else choice):
        return
    text = render(os.environ.get("GITHUB_WORKSPACE", ""))
    if text:
        say(f"\n{text}" if inside_line else text, err=True)


EXIT_USAGE = 2
"""Status when dlltracer itself could not do what was asked. A program's own status passes through unchanged."""


EXIT_MISSING = 1
"""Status when something was found to be missing."""


def say_error(message: str) -> int:
    """Write one line on stderr, whatever the message holds; return the status to leave with."""
    say(f"dlltracer: error: {escape(message)}\n", err=True)
    return EXIT_USAGE


def end_like(status: int) -> NoReturn:
    """Leave with a status of `subprocess.Popen`: a negative one is a signal, which then kills us as well."""
    if status >= 0:
        # Windows: a status is 32 bits without a sign, sys.exit takes a C int.
        sys.exit(status - (1 << 32) if status >> 31 else status)
    if sys.platform != "win32":
        import resource
        import signal

        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        # The program has left a core dump if one was wanted; one of ours would take its place.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-status])
        os.kill(os.getpid(), -status)
    sys.exit(128 - status)  # as a shell says it; reached for a signal that does not kill


def describe_ending(status: int) -> str:
    """Return how a program ended that did not end its trace: "was killed by SIGSEGV"."""
    if status < 0 or status >> 31:
        from ..model.words import describe_end

        return describe_end(status)
    why = "os._exit, another program took its place, no right or no room to write its result"
    return f"left without a word ({why}; status {status})"
