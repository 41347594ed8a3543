"""A question of the self-test, the room in which it is asked, and the process that asks those of one group."""

from __future__ import annotations

import base64
import functools
import importlib
import json
import os
import platform
import struct
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

from ..model.encode import encode
from ..model.run import SelfTestStep, StepState

MOST_FACTS = 300
"""Of one step. A fact more is not kept."""
LONGEST_TEXT = 4000
"""In characters, of what is seen and of a fact; longer ones are cut."""


class CannotAsk(Exception):
    """This machine does not allow the question; the text says why, as a sentence without a full stop."""


Answer = tuple[bool, str]
"""Whether what was seen is right, and what was seen, in words."""


@dataclass(frozen=True)
class Question:
    """A step before it is asked.

    Attributes:
        group, name, expected: as `SelfTestStep` has them.
        ask: asks it, and notes facts in its room. `CannotAsk` is an answer, any other exception a failure.
        on_wine: how Wine is known to differ from Windows here; then a wrong answer of Wine is no failure.
    """

    group: str
    name: str
    expected: str
    ask: Callable[[Room], Answer]
    on_wine: str = ""


class Room:
    """The files and helpers with which one question is asked.

    Arguments:
        folder: of this question alone; it exists.
        letter: a letter or digit that no other question of this process has. Names with it are new to the loader.
    """

    def __init__(self, folder: str, letter: str) -> None:
        self.folder = folder
        self.letter = letter
        self.facts: list[tuple[str, str]] = []

    def note(self, name: str, value: object) -> None:
        """Note a fact. Its value becomes text; what is private in it is replaced later, outside of this process."""
        if len(self.facts) < MOST_FACTS:
            self.facts.append((name, str(value)[:LONGEST_TEXT]))

    def path(self, *names: str) -> str:
        """Return the path of a file in the room, in a folder that exists."""
        path = os.path.join(self.folder, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def place(self, image: str, *names: str, machine: str | None = None) -> str:
        """Write a tiny image to a file in the room and return its path. `machine`: this process' own by default.

        Raises `CannotAsk` where there are no images for this process.
        """
        return self.write(read_image(image, machine or own_machine(), self.letter), *names)

    def write(self, data: bytes, *names: str) -> str:
        """Write a file in the room and return its path."""
        path = self.path(*names)
        with open(path, "wb") as file:
            file.write(data)
        return path

    @property
    def dependency(self) -> str:
        """The name that the images of this room need, in place of `dt_dep_0.dll` or `libdt_dep0.so`."""
        return f"dt_dep_{self.letter}.dll" if sys.platform == "win32" else f"libdt_dep{self.letter}.so"


MACHINES = {
    "x64": "Windows, x64", "x86": "Windows, x86", "arm64": "Windows, ARM64", "x86_64": "Linux, x86-64",
    "i386": "Linux, i386", "aarch64": "Linux, aarch64", "arm": "Linux, arm", "riscv64": "Linux, riscv64",
}  # fmt: skip
"""The machines that there are images for, and what they are."""


@functools.cache
def read_images() -> Mapping[str, Mapping[str, str]]:
    """Return the tiny images by machine and name, packed as tools/make_selftest_images.py leaves them."""
    text = resources.files(__package__).joinpath("images.json").read_text("ascii")
    found: Mapping[str, Mapping[str, str]] = json.loads(text)
    return found


def read_image(name: str, machine: str, letter: str = "0") -> bytes:
    """Return the bytes of a tiny image. `letter` takes the place of the 0 in the names of what it needs.

    The names stay as long as they were, so that nothing else in the file changes.
    """
    data = zlib.decompress(base64.b64decode(read_images()[machine][name]))
    for stem in (b"dt_dep_", b"libdt_dep", b"dt_gone", b"libdt_gone"):
        data = data.replace(stem + b"0.", stem + letter.encode("ascii") + b".")
    return data


def own_machine() -> str:
    """Return the name of this process' machine among `MACHINES`. Raises `CannotAsk` where there are no images for it.

    The process counts, not the processor: a 32-bit Python loads images of 32 bits.
    """
    machine = platform.machine().lower()
    wide = struct.calcsize("P") == 8
    found: str | None
    if sys.platform == "win32":
        # sysconfig says for what this Python was built: an x64 one runs on ARM64 as well, by emulation.
        import sysconfig

        built = sysconfig.get_platform()
        found = {"win-amd64": "x64", "win32": "x86", "win-arm64": "arm64"}.get(built)
    elif machine in ("x86_64", "amd64", "i386", "i586", "i686"):
        found = "x86_64" if wide else "i386"
    elif machine in ("aarch64", "arm64") or machine.startswith("arm"):
        found = "aarch64" if wide else "arm"
    else:
        found = machine if machine == "riscv64" else None
    if found is None or (sys.platform not in ("linux", "win32")):
        raise CannotAsk(f"there are no tiny images for {sys.platform} on {machine}")
    return found


def other_machines() -> tuple[str, ...]:
    """Return the names of the machines of the same system that this process is not for. Raises `CannotAsk`."""
    own = own_machine()
    windows = ("x64", "x86", "arm64")
    kind = windows if own in windows else tuple(name for name in MACHINES if name not in windows)
    return tuple(name for name in kind if name != own)


def answer(question: Question, room: Room, is_wine: bool) -> SelfTestStep:
    """Ask the question and return the step. Raises nothing but what ends a process."""
    begun = time.perf_counter()
    state, seen, reason = StepState.OK, "", None
    try:
        ok, seen = question.ask(room)
        if not ok:
            state, reason = StepState.FAILED, "it is not what is expected"
    except CannotAsk as refusal:
        state, reason = StepState.NOT_ASKED, str(refusal)
    except Exception as error:  # noqa: BLE001 - whatever a step meets is its result
        state, reason = StepState.FAILED, describe_error(error)
    if state is StepState.FAILED and is_wine and question.on_wine:
        more = "" if seen else f"; {reason}"
        state, reason = StepState.NOT_ASKED, f"Wine is not Windows here: {question.on_wine}{more}"
    return SelfTestStep(
        group=question.group, name=question.name, expected=question.expected, state=state,
        seen=seen[:LONGEST_TEXT], reason=reason, seconds=round(time.perf_counter() - begun, 6),
        facts=tuple(room.facts),
    )  # fmt: skip


def describe_error(error: BaseException) -> str:
    """Return an exception in words, with its numbers: they are the same in every language."""
    numbers = [
        f"{name} {value}" for name in ("winerror", "errno") if (value := getattr(error, name, None)) is not None
    ]
    end = f" ({', '.join(numbers)})" if numbers else ""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f", line {place.tb_lineno} of {os.path.basename(place.tb_frame.f_code.co_filename)}" if place else ""
    return f"{type(error).__name__}: {error}{end}{where}"[:LONGEST_TEXT]


GROUPS = {
    "system": "everywhere",
    "images": "everywhere",
    "limits": "linux",
    "loader": "linux",
    "rtld": "linux_mechanisms",
    "snapshot": "linux_mechanisms",
    "seccomp": "everywhere",
    "search": "linux",
    "commands": "everywhere",
    "windows": "windows_loader",
    "structures": "windows_loader",
    "codes": "windows_loader",
    "lookups": "windows_loader",
    "names": "windows_names",
    "etw": "windows_etw",
    "debugger": "windows_debugger",
}
"""The groups, and the module of each: its function `questions` returns those of all groups in it."""

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def list_groups() -> tuple[str, ...]:
    """Return the groups of this system, in the order in which they are asked."""
    own = {
        "linux": ("limits", "loader", "rtld", "seccomp", "snapshot", "search", "commands"),
        "win32": ("windows", "structures", "codes", "lookups", "names", "debugger", "etw", "commands"),
    }.get(sys.platform, ("commands",))
    return ("system", "images", *own)


def list_questions(group: str) -> tuple[Question, ...]:
    """Return the questions of a group."""
    module = importlib.import_module(f".{GROUPS[group]}", __package__)
    return tuple(question for question in module.questions() if question.group == group)


def is_wine() -> bool:
    """Return whether this Windows is Wine, whose ntdll says so (wine_get_version)."""
    if sys.platform != "win32":
        return False
    from ..capture.windows.system import open_system_library

    return hasattr(open_system_library("ntdll.dll"), "wine_get_version")


def main(arguments: list[str]) -> None:
    """Ask the questions of a group from a number on.

    Arguments: the group, the number of its first question, the folder for the rooms, the file for the answers.
    """
    group, first, folder, results = arguments
    if sys.platform == "win32":
        _silence_windows()
    wine = is_wine()
    with open(results, "a", encoding="ascii") as file:

        def write(**line: object) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        for number, question in enumerate(list_questions(group)):
            if number < int(first):
                continue
            write(begun=number)
            room = Room(os.path.join(folder, f"{group}-{number}"), _LETTERS[number % len(_LETTERS)])
            os.makedirs(room.folder, exist_ok=True)
            write(number=number, step=encode(answer(question, room, wine)))


def _silence_windows() -> None:
    """No message boxes: for a missing drive or a damaged image (1), a crash (2), a file not found (0x8000).

    Source: SetErrorMode, MS Learn. Processes that this one starts inherit it.
    """
    if sys.platform == "win32":
        from ..capture.windows.system import open_system_library

        open_system_library("kernel32.dll").SetErrorMode(0x1 | 0x2 | 0x8000)
