"""Words for people: rules of loaders, outcomes, ends of processes, crashes, numbers.

Verdicts (`diagnose`) and reports (`report`) use the same words. Both may import `model`, and neither the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from .events import Phase, ProbeOutcome
from .failure import Crash, status_name
from .light import dataclass

_IMPORTS = 20
"""Names of a chain of imports that are shown."""

_ABI_TAG = r"\.(?:cpython-[^.]+|cp\d[^.]*|abi3t?)(?=\.(?:so|pyd)$)"
"""What an extension module's file name says of the Python it is for (PEP 3149)."""


def size_in_words(size: int | None) -> str:
    """Bytes as people read them: "4.4 MiB"."""
    if size is None:
        return ""
    if abs(size) < 1024:
        return f"{size} B"
    # In whole numbers: a file may say any size, also one that no float has.
    power = min((abs(size).bit_length() - 1) // 10, 4)
    tenths = size * 10 // 1024**power
    return f"{tenths // 10}.{tenths % 10} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def time_in_words(seconds: float | None) -> str:
    """Return seconds since 1970 as "1970-01-01 00:00:00 UTC"; as a number where no calendar has it; "" for none."""
    if seconds is None:
        return ""
    try:
        import datetime  # an extension module, and the outputs of a running trace use this module

        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s since 1970"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def shorten(texts: Sequence[str], most: int, what: str) -> list[str]:
    """Return the first `most` texts, and how many more there are: "… 3210 more lines", with "more lines" as `what`."""
    return [*texts] if len(texts) <= most else [*texts[:most], f"… {len(texts) - most} {what}"]


def span_in_words(seconds: float) -> str:
    """A time since the first load: "0.153 s"."""
    return f"{seconds:.3f} s"


def without_abi_tag(name: str) -> str:
    """The name of an extension module, its ABI tag cut short: "_ssl….so"."""
    if not any(tag in name for tag in (".cpython-", ".cp", ".abi3")):
        return name
    import re  # not above: most names have no tag

    return re.sub(_ABI_TAG, "…", name, count=1)


def label_of(name: str, room: int) -> str:
    """Return a file name in at most `room` characters: without its ABI tag, else without its middle."""
    if len(name) > room:
        name = without_abi_tag(name)
    if len(name) > room:
        tail = room // 3
        name = f"{name[: room - tail - 1]}…{name[-tail:]}"
    return name


@dataclass(frozen=True)
class RuleWords:
    """The names of a rule of a loader.

    Attributes:
        title: its name, for a heading and behind "found by".
        found: how it led to a file, behind "found": "by RUNPATH". Empty where a sentence would say nothing.
        reason: why it took the file, as a clause of its own; Windows only.
    """

    title: str
    found: str = ""
    reason: str = ""


RULES = {
    Phase.DIRECT: RuleWords("by its full path", "by its full path", "its whole path was given"),
    Phase.LOADED: RuleWords(
        "already loaded", "because it was in the process already",
        "it was in the process already, and the first image of a name serves all who ask for that name",
    ),
    Phase.PRELOAD: RuleWords("LD_PRELOAD", "by LD_PRELOAD"),
    Phase.RPATH: RuleWords("RPATH", "by RPATH"),
    Phase.RUNPATH: RuleWords("RUNPATH", "by RUNPATH"),
    Phase.ENVIRONMENT: RuleWords("LD_LIBRARY_PATH", "by LD_LIBRARY_PATH"),
    Phase.CACHE: RuleWords("cache", "by /etc/ld.so.cache"),
    Phase.SYSTEM: RuleWords("system folders", "in a system folder", "it lies in System32"),
    Phase.API_SET: RuleWords("API set", reason="Windows maps that contract to it"),
    Phase.REDIRECTION: RuleWords(".local redirection", reason="a .local redirection leads to it"),
    Phase.MANIFEST: RuleWords("manifest", reason="a manifest names it"),
    Phase.KNOWN_DLL: RuleWords("known DLLs", reason="Windows takes that name from System32 always"),
    Phase.IMAGE_FOLDER: RuleWords(
        "the image's own folder", "beside the image that was asked for",
        "it lies in the folder of the file that was imported",
    ),
    Phase.APPLICATION: RuleWords(
        "the program's folder", "in the folder of the program", "it lies in the folder of python.exe"
    ),
    Phase.ADDED: RuleWords(
        "os.add_dll_directory", "by os.add_dll_directory", "it lies in a folder of os.add_dll_directory"
    ),
    Phase.WINDOWS: RuleWords("Windows folder", "in the Windows folder", "it lies in the Windows folder"),
    Phase.CURRENT: RuleWords("current folder", "in the current folder", "it lies in the current folder"),
    Phase.PATH: RuleWords("PATH", "by PATH", "it lies in a folder of PATH"),
    Phase.OTHER: RuleWords("another rule"),
}  # fmt: skip

OUTCOMES = {
    ProbeOutcome.LOADED: "taken",
    ProbeOutcome.ABSENT: "not there",
    ProbeOutcome.NO_ENTRY: "no entry",
    ProbeOutcome.PASSED: "passed over",
    ProbeOutcome.PRESENT: "there, and not taken",
}

_SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
    24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
}  # fmt: skip
"""signal(7): numbers of x86 and ARM. A recording may be of another system than this one, so `signal` is not asked."""


def rule_title(phase: Phase, origin: str | None) -> str:
    """Return the name of the rule, with its origin: "RUNPATH of /x/a.so", "cache (/etc/ld.so.cache)"."""
    title = RULES[phase].title
    if origin is None:
        return title
    if phase in (Phase.RPATH, Phase.RUNPATH, Phase.MANIFEST):
        return f"{title} of {origin}"
    return origin if phase is Phase.OTHER else f"{title} ({origin})"


def signal_name(number: int) -> str:
    """Return the name of a signal of Linux: "SIGSEGV"; "signal 64" for one without a name."""
    return _SIGNALS.get(number, f"signal {number}")


def describe_status(status: int | None) -> str:
    """Return how a process ended, as a noun or participle: "status 3", "killed by SIGKILL".

    Arguments: `status`, as of `subprocess.Popen`: negative for a signal; on Windows 32 bits without a sign.
    """
    if status is None:
        return "not known"
    if status < 0:
        return f"killed by {signal_name(-status)}"
    if status >> 31:
        name = status_name(status)
        return f"status {status:#010x}{f' ({name})' if name else ''}"
    return f"status {status}"


def describe_end(status: int) -> str:
    """Return how a process ended, as a verb: "was killed by SIGKILL", "ended with status 3"."""
    how = describe_status(status)
    if status >= 0 and status >> 31:
        return f"was ended by Windows with {how}"
    return f"was {how}" if status < 0 else f"ended with {how}"


def describe_crash(crash: Crash) -> str:
    """Return what ended a process, and where: "SIGSEGV in /x/a.so at offset 0x1139"."""
    where = "at an unknown place" if crash.image is None else f"in {crash.image}"
    offset = "" if crash.offset is None else f" at offset {crash.offset:#x}"
    return f"{crash.name} {where}{offset}"
