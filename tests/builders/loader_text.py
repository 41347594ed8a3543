"""Build glibc's log of its loader, line by line, in the words of glibc 2.36."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlltracer.capture.linux.decode import LoaderTextDecoder
from dlltracer.capture.marks import encode_request
from dlltracer.model.events import ImageChange

PYTHON = "/usr/bin/python3"


@dataclass
class LoaderText:
    """Collects lines; every method adds what the loader would write for one thing that it does."""

    pid: int = 77
    parts: list[bytes] = field(default_factory=list)
    base: int = 0x7F0000000000

    @property
    def bytes(self) -> bytes:
        return b"".join(self.parts)

    def line(self, text: str, pid: int | None = None) -> LoaderText:
        self.parts.append(b"%10d:\t%s\n" % (pid or self.pid, text.encode("utf-8", "surrogateescape")))
        return self

    def request(self, target: str, *imports: str, kind: str = "import", tid: int = 5, wall: float = 1e9) -> LoaderText:
        self.parts.append(encode_request((kind, target, imports, tid, wall, 1, (), None)))
        return self

    def open(self, name: str, by: str = PYTHON) -> LoaderText:
        return self.line("").line(f"file={name} [0];  dynamically loaded by {by} [0]")

    def need(self, name: str, by: str) -> LoaderText:
        return self.line("").line(f"file={name} [0];  needed by {by} [0]")

    def find(self, name: str) -> LoaderText:
        return self.line(f"find library={name} [0]; searching")

    def search(self, folders: str, origin: str) -> LoaderText:
        return self.line(f" search path={folders}\t\t({origin})")

    def cache(self, file: str = "/etc/ld.so.cache") -> LoaderText:
        return self.line(f" search cache={file}")

    def trying(self, *paths: str) -> LoaderText:
        for path in paths:
            self.line(f"  trying file={path}")
        return self

    def miss(self, path: str, why: str) -> LoaderText:
        return self.trying(path).line(f"    ({why})")

    def map(self, name: str) -> LoaderText:
        self.base += 0x100000
        if not ("/" in name and self.parts and b"dynamically loaded by" in self.parts[-1]):
            self.line("")  # a search has ended
        self.line(f"file={name} [0];  generating link map")
        self.line(f"  dynamic: 0x{self.base + 64:016x}  base: 0x{self.base:016x}   size: 0x{0x4018:016x}")
        return self.line(
            f"    entry: 0x{self.base:016x}  phdr: 0x{self.base + 64:016x}  phnum:                  9"
        ).line("")

    def init(self, path: str) -> LoaderText:
        return self.line("").line(f"calling init: {path}").line("")

    def fini(self, path: str) -> LoaderText:
        return self.line("").line(f"calling fini: {path} [0]").line("")

    def opened(self, path: str, count: int = 1) -> LoaderText:
        return self.line(f"opening file={path} [0]; direct_opencount={count}").line("")

    def destroy(self, path: str) -> LoaderText:
        return self.line("").line(f"file={path} [0];  destroying link map")

    def transfer(self, program: str) -> LoaderText:
        return self.line(f"initialize program: {program}").line(f"transferring control: {program}")

    def started(self, program: str, *libraries: str) -> LoaderText:
        """The start of a program that needs these, each a path."""
        for path in libraries:
            name = path.rpartition("/")[2]
            self.need(name, program).find(name).cache().trying(path).map(name)
        for path in libraries:
            self.init(path)
        return self.transfer(program)

    def left(self) -> LoaderText:
        """Finalisers, at the end of a program."""
        return self.line("calling fini:  [0]")

    def error(self, path: str, text: str) -> LoaderText:
        return self.line(f"{path}: error: {text} (fatal)")


@dataclass(frozen=True)
class DecodedText:
    """What a decoder makes of a whole text.

    Attributes: `events` in order; `undecodable` lines; `foreign` lines, written by other processes (a child made by
    fork in C code); `initialising`, the image whose initialiser was running when the text ended, if any; `doubts`:
    index of a failure in `events` -> the image opened next, as in `loaderstate.Change`.
    """

    events: tuple[ImageChange, ...]
    doubts: dict[int, str]
    undecodable: int
    foreign: int
    initialising: str | None


def decode_loader_text(text: bytes, *, pid: int | None = None, ended: bool = True) -> DecodedText:
    """Decode the loader's text.

    Arguments:
        text: bytes as written by ld.so, with the marks of `marks.encode_request` between.
        pid: only lines of this process; `None` for the process of the first line.
        ended: the text is whole. `False` for a process that died: a search without a result is then no failure.
    Never raises for any input: what it cannot read is counted.
    """
    decoder = LoaderTextDecoder(pid)
    changes = decoder.feed(text) + decoder.finish(ended)
    return DecodedText(
        tuple(event for event, _ in changes),
        {number: doubt for number, (_, doubt) in enumerate(changes) if doubt is not None},
        decoder.undecodable,
        decoder.foreign,
        decoder.initialising(),
    )
