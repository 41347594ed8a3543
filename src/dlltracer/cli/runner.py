"""Defines what the parent and the runner (child.py) exchange: a command line one way, a report the other way.

Both sides import this module, and the runner does so in the process of the program: nothing is imported here that a
plain interpreter has not imported anyway (ADR 3).
"""

from __future__ import annotations

import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from typing import Any

_PREFIX = "DLLTRACER_LOG_PREFIX"

UNTRACED = "none"
"""In the place of a backend's name: run the program, and tell how it ended only."""

DEBUGGED = "debugged"
"""In the place of a backend's name: the program is traced from outside, and writes down what it requests."""


WATCHED = "watched"
"""In the place of a backend's name: the system calls of the program are watched from outside, and it marks among them
what it requests."""


class LogSharing:
    """The way in which the text of the program's loader reaches the parent.

    Attributes:
        descriptor: of a file that the runner inherits, and its trace writes to; the parent reads it when all is over.
        view: what `log_file.view_of_files` is for the parent; "" if not known. Of a descriptor only.
        prefix: of the names of log files that the parent reads while the program runs.
        from_start: the log at `prefix` has begun with the process: what follows first is the runner's own doing.
        with_children: the loaders of child processes write such logs, too.
        deadline: as `time.time()`, when the program writes down where it is, beside its report; `None`: never. It is no
            part of a log, and comes the same way.

    Without a descriptor and a prefix nothing is shared.
    """

    __slots__ = ("deadline", "descriptor", "from_start", "prefix", "view", "with_children")

    def __init__(
        self, descriptor: int | None = None, prefix: str | None = None, *, from_start: bool = False,
        with_children: bool = False, deadline: float | None = None, view: str = "",
    ) -> None:  # fmt: skip
        self.deadline = deadline
        self.descriptor = descriptor
        self.view = view
        self.prefix = prefix
        self.from_start = from_start
        self.with_children = with_children

    def encode(self) -> str:
        """The sharing as one word of a command line; `decode` reads it.

        The prefix is not in it: every user of the machine can read a command line (proc(5), cmdline).
        """
        if self.prefix is not None:
            return f"{'s' if self.from_start else ''}{'c' if self.with_children else ''}:"
        if self.deadline is not None:
            return f"@{self.deadline!r}"
        return "-" if self.descriptor is None else f"{self.descriptor},{self.view}"

    def environment(self) -> dict[str, str]:
        """The variables that the runner needs, and takes away before the program begins."""
        return {} if self.prefix is None else {_PREFIX: self.prefix}

    @classmethod
    def decode(cls, word: str, environment: MutableMapping[str, str]) -> LogSharing:
        """The sharing that `encode` made the word of; its variables are taken out of the environment."""
        prefix = environment.pop(_PREFIX, None)
        flags, is_prefix, _ = word.partition(":")
        if is_prefix and prefix is not None:
            return cls(None, prefix, from_start="s" in flags, with_children="c" in flags)
        if word.startswith("@"):
            return cls(deadline=float(word[1:]))
        descriptor, is_descriptor, view = word.partition(",")
        return cls(int(descriptor), view=view) if is_descriptor else cls()


class RunnerOutcome:
    """The result of a program, as far as the runner knows it: values of `RunnerReport.outcome`."""

    REFUSED = "refused"
    """The trace could not start, and the program was not run; `message` says why."""
    NOT_BEGUN = "not begun"
    """There is no such script or module."""
    UNTRACED = "untraced"
    """The program ended. This process did not trace it."""
    RECORDED = "recorded"
    """The program ended, and the trace was ended: `recording`."""
    LEFT = "left"
    """The program ended, and the trace was ended; the parent decodes the log: `left`."""
    UNFINISHED = "unfinished"
    """The trace has not been ended in its process: it could not be, and `message` says why; or the program's code has
    run to its end, and its exit handlers were still to run when this was written."""
    FOLLOWED = "followed"
    """The program ended. The parent has its log."""


OUTCOMES = (
    RunnerOutcome.REFUSED, RunnerOutcome.NOT_BEGUN, RunnerOutcome.UNTRACED, RunnerOutcome.RECORDED,
    RunnerOutcome.LEFT, RunnerOutcome.UNFINISHED, RunnerOutcome.FOLLOWED,
)  # fmt: skip


class RunnerReport:
    """The report of the runner on its program, at the end.

    Attributes:
        outcome: one of `RunnerOutcome`.
        message: why it is so, for outcomes that need a reason; "" for none.
        recording: plain values, by `model.encode`.
        left: arguments of `capture.linux.rtld.LeftLog`, by their names; `None` if no log was left to the parent.
        errors, process: plain values of `host.facts`; `None` if they could not be described.
        ends: what is known of the end of each request: (succeeded, idle_clock) pairs, see `model.request.Request`.
        notes: what the reader of the followed log should know.
        completed: whether the program's code ran to its end without an exception.
        children: the programs that it started with an LD_LIBRARY_PATH: (name, value) pairs, the last ones.
    """

    __slots__ = (
        "children", "completed", "ends", "errors", "left", "message", "notes", "outcome", "process", "recording",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a record; no dataclass here (ADR 3)
        self, outcome: str, message: str = "", *, recording: object = None, errors: object = None,
        process: object = None, ends: Sequence[tuple[bool | None, int | None]] = (), notes: Sequence[str] = (),
        completed: bool = False, children: Sequence[tuple[str, str]] = (), left: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.children = tuple(children)
        self.completed = completed
        self.outcome = outcome
        self.message = message
        self.recording = recording
        self.left = left
        self.errors = errors
        self.process = process
        self.ends = tuple(ends)
        self.notes = tuple(notes)

    def write(self, path: str) -> None:
        """Write the report whole or not at all; the parent makes do without one."""
        try:
            data = marshal.dumps([getattr(self, name) for name in self.__slots__])
            if path.startswith("/proc/"):  # a file in memory (host/recording_files.py), which cannot be replaced
                with open(path, "wb") as file:
                    file.write(data)
                return
            with open(f"{path}.part", "wb") as file:
                file.write(data)
            os.replace(f"{path}.part", path)
        except Exception:  # noqa: BLE001 - the program has ended: there is nobody to tell
            return

    @classmethod
    def read(cls, path: str) -> RunnerReport | None:
        """The report that was written there; `None` if there is none, or a damaged one."""
        try:
            with open(path, "rb") as file:
                values = marshal.load(file)  # noqa: S302 - written by the same user, in a folder of our own
            known: dict[str, Any] = dict(zip(cls.__slots__, values, strict=True))
            report = cls(known.pop("outcome"), **known)
        except (OSError, EOFError, ValueError, TypeError):
            return None
        return report if report._is_sound() else None

    def _is_sound(self) -> bool:
        return (
            self.outcome in OUTCOMES
            and isinstance(self.message, str)
            and isinstance(self.completed, bool)
            and all(isinstance(note, str) for note in self.notes)
            and all(isinstance(end, tuple) and len(end) == 2 for end in self.ends)
            and all(isinstance(child, tuple) and list(map(type, child)) == [str, str] for child in self.children)
        )
