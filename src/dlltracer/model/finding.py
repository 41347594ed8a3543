"""Conclusions of dlltracer: causes with their evidence, differences of two traces, an import order that breaks."""

from __future__ import annotations

import enum

from .events import Probe
from .failure import Crash, PythonError, System
from .light import dataclass


class Confidence(enum.Enum):
    """The strength of the evidence for a finding."""

    CERTAIN = "certain"
    """The evidence leaves no other cause."""
    LIKELY = "likely"
    """It fits, and nothing contradicts; the evidence would look the same for rarer causes."""
    POSSIBLE = "possible"
    """It fits, as other causes would. Never a verdict by itself."""


class Source(enum.Enum):
    """The origin of a piece of evidence."""

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
    """A fact behind a finding, as a sentence, and its source."""

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
        code: stable name of the kind of cause; report/pages/findings.md has an entry for each.
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
    """The outcome of a diagnosis."""

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
        """True if nothing says that the run failed: how it ended is not known."""
        return self.error is None and self.crash is None and UNKNOWN_END in self.undecided

    @property
    def undecided_title(self) -> str:
        """The headline where no cause was found."""
        if self.may_have_worked:
            return f"how {self.what} ended is not known, nor whether it failed"
        return f"{self.what} failed, and the evidence does not decide why"


class DifferenceKind(enum.Enum):
    """The kind of a difference; in the order in which they explain why one run works and the other does not."""

    OUTCOME = "outcome"
    """One program ended well and the other did not."""
    MISSING = "missing"
    """Loaded in one trace; in the other asked for, and not found or not taken."""
    OTHER_COPY = "other copy"
    """Found in both, in places that do not correspond."""
    OTHER_VERSION = "other version"
    """Loaded in both from places that correspond, and the files are not the same."""
    OTHER_ORDER = "other order"
    """Loaded in both, before others in one and behind them in the other."""
    ONLY_ONE = "only one"
    """Loaded in one trace; in the other never asked for, or dropped because another load failed."""
    ENVIRONMENT = "environment"
    """The machine, the interpreter, the environment."""


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        kind: what kind.
        name: what differs: the base name of an image, the name of a variable.
        first, second: how it is in the first trace and in the second; `None` where there is nothing.
        detail: more about it, as a sentence or sentences; may be empty.
    """

    kind: DifferenceKind
    name: str
    first: str | None
    second: str | None
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two traces compared.

    Attributes:
        first, second: what the traces are called.
        differences: the most telling first.
        same: number of images that are the same in both.
        notes: what could not be compared.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    same: int
    notes: tuple[str, ...] = ()


class OrderOutcome(enum.Enum):
    """The outcome of trying orders of imports."""

    NO_ORDER_BREAKS = "no order breaks"
    """The order as given and its reverse work: so every two of them were tried in both orders."""
    BREAKS = "an order breaks"
    """Some order fails, and each of its modules works alone."""
    FAILS_ALONE = "fails alone"
    """A module fails without any other: the order is not the cause."""


@dataclass(frozen=True)
class OrderTrial:
    """Modules imported one after the other in a process of its own.

    Attributes:
        modules: in their order.
        failed_at: place in it of the module whose import failed; `None` if all worked.
        how: what happened ("ImportError: ...", "was killed by SIGSEGV"); empty if all worked.
    """

    modules: tuple[str, ...]
    failed_at: int | None = None
    how: str = ""

    @property
    def works(self) -> bool:
        """True if every module of the order was imported."""
        return self.failed_at is None


@dataclass(frozen=True)
class OrderSearch:
    """The result of a search for the order that breaks.

    Attributes:
        outcome: what came of it.
        breaking: the fewest modules, in an order that fails; the last one is the one that fails.
        works: the same modules in an order that works; `None` if none was found.
        trials: all that was tried, in order.
    """

    outcome: OrderOutcome
    breaking: OrderTrial | None = None
    works: OrderTrial | None = None
    trials: tuple[OrderTrial, ...] = ()
