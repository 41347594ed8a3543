"""A verdict: named causes with their evidence, how sure they are, and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .events import Probe
from .failure import Crash, PythonError, System


class Confidence(enum.Enum):
    """How much the evidence decides."""

    CERTAIN = "certain"
    """The evidence leaves no other cause."""
    LIKELY = "likely"
    """It fits, and nothing contradicts; the evidence would look the same for rarer causes."""
    POSSIBLE = "possible"
    """It fits, as other causes would. Never a verdict by itself."""


class Source(enum.Enum):
    """Who gave a piece of evidence."""

    LOADER = "the loader"
    """What the loader was seen to do."""
    PYTHON = "Python"
    """What the exception says."""
    FILES = "the files"
    """What was read from the files, later."""
    SYSTEM = "the system"
    """What the system says: limits, mounts, the way the process ended."""
    TRIAL = "a trial"
    """What happened when the import was tried again with one thing changed."""
    PACKAGES = "the packages"
    """What package managers have on record."""
    PROGRAM = "the program"
    """What the program, or a process that it started, wrote."""


@dataclass(frozen=True)
class Evidence:
    """A fact that a finding rests on, as a sentence, and who said it."""

    source: Source
    says: str


@dataclass(frozen=True)
class Remedy:
    """Something to do.

    Attributes:
        what: what it does, as a sentence.
        command: the words of the command that does it, program first; () if none does. They are not quoted: joining
            them for a shell is for those that show them (`report.commands`).
        code: the line of Python that does it, run before the import; empty if none does.
        tried: whether the import was tried again with it, and worked.
    """

    what: str
    command: tuple[str, ...] = ()
    code: str = ""
    tried: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause.

    Attributes:
        code: stable name of the kind of cause; docs/reference/findings.md has an entry for each.
        title: what is wrong, in one sentence without a full stop.
        confidence: how sure.
        subject: the file or name that is the cause.
        chain: who needs it, from the Python import down to the subject; each one step.
        probes: every place where it was looked for.
        explanation: why that made the import fail; a few sentences.
        evidence: what it rests on.
        remedies: what to do, best first.
    """

    code: str
    title: str
    confidence: Confidence
    subject: str
    chain: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    explanation: str = ""
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()


class Outcome(enum.Enum):
    """What came of it all."""

    IMPORTED = "imported"
    EXPLAINED = "explained"
    NOT_TRACED = "not traced"
    UNDECIDED = "undecided"

    @property
    def exit_status(self) -> int:
        """The status that `dlltracer why` ends with."""
        return {Outcome.IMPORTED: 0, Outcome.EXPLAINED: 1, Outcome.NOT_TRACED: 3, Outcome.UNDECIDED: 4}[self]


UNKNOWN_END = "how the program ended: that is not known"
"""Among what would decide, of a recording that was cut off."""


@dataclass(frozen=True)
class Diagnosis:
    """The answer to "why".

    Attributes:
        what: what was tried ("import x").
        outcome: whether it worked, and whether the cause is known.
        error: the exception that says it, if there was one.
        crash: how the process died, if it did.
        findings: the causes, surest first.
        undecided: for `Outcome.UNDECIDED`: what would decide.
        notes: what could not be looked at.
        system: the system of the program: commands of the findings are for its shells.
        output: the lines that the program wrote before it failed and that matter, in order; () if the exception says
            it all.
    """

    what: str
    outcome: Outcome
    error: PythonError | None = None
    crash: Crash | None = None
    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    system: System = System.OTHER
    output: tuple[str, ...] = ()

    @property
    def may_have_worked(self) -> bool:
        """Whether nothing says that it failed: how it ended is not known."""
        return self.error is None and self.crash is None and UNKNOWN_END in self.undecided

    @property
    def undecided_title(self) -> str:
        """The headline where no cause was found."""
        if self.may_have_worked:
            return f"how {self.what} ended is not known, nor whether it failed"
        return f"{self.what} failed, and the evidence does not decide why"
