"""Renders the short verdict that people read first: at most `MOST` lines as wide as the screen.

In order: what was asked for and the cause; what to do; who needed it; where it was looked for; why; how sure; how to
learn more. `render_verdict.verdict_lines` has all the places, all evidence and the notes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..model.events import Phase, Probe, ProbeOutcome
from ..model.failure import System
from ..model.finding import Confidence, Diagnosis, Finding, Outcome, Remedy
from ..model.light import dataclass, replace
from ..model.screen import Screen, columns_of, cut, escape, fit, wrap
from ..model.words import OUTCOMES, RULES, describe_crash, without_abi_tag
from .drawing import BOLD, DIM, FAILED, FIXED, PLAIN, WARNING, Line, Styled, file_name, number
from .render_verdict import remedy_line
from .short_paths import ShortPaths, choose_short_paths

MOST = 14
"""Lines of a verdict, empty ones among them."""

_INDENT, _LABEL = 2, 8
_START = _INDENT + _LABEL
"""The column that texts behind a label begin at."""

_WIDEST_PROSE = 110
"""Columns of sentences: longer rows are hard to read, however wide the screen is."""

_STATE_COLUMN = 56
"""The column that the state of the culprit begins at, where there is room."""

_WORKS = len(" works: nothing to explain")

_FRAME = re.compile(r"(?P<place>.+?:\d+): (?P<source>.+)", re.DOTALL)
"""A step of a chain that is a line of Python."""

_TAGGED = re.compile(r"(?<![\w-])[\w-]+\.(?:cpython-|cp\d)[\w-]+\.(?:so|pyd)\b")
"""Names of extension modules with what they say of the Python that they are for."""

_TELLING = re.compile(
    r"error|fatal|fail|cannot|can't|could not|unable|not found|mismatch|no such|\d+\.\d+|\.so\b|\.dll\b", re.IGNORECASE
)
"""What is in the lines of a program's output that say what is wrong."""

_LOADER_WORDS = re.compile(
    r"cannot open shared object file|undefined symbol|DLL load failed|version `|file too short|invalid ELF header|"
    r"No module named|cannot load any more object|failed to map segment|wrong ELF class|symbol lookup error|static TLS|"
    r"cannot enable executable stack|cannot make segment writable|ISA level is lower|cannot dynamically load|"
    r"only ET_DYN|ELF load command|ELF file (?:version|data)|cannot map zero-fill|does not define module export"
)
"""Messages that say nothing that a verdict does not say better."""


def render_short_verdict(diagnosis: Diagnosis, screen: Screen | None = None, *, counts: str = "") -> Styled:
    """Return the verdict as styled lines.

    Arguments: `counts`, how many images were loaded, for an import that works ("21 images, 0 failed").
    """
    return Styled(short_lines(diagnosis, screen or Screen(), counts=counts))


def render_first_line(diagnosis: Diagnosis, screen: Screen) -> Styled:
    """Return the cause alone, as one line: what does not fit is left out."""
    return Styled(headline(diagnosis, replace(screen, width=_ONE_LINE))[:1])


_ONE_LINE = 100_000


def short_lines(diagnosis: Diagnosis, screen: Screen, *, counts: str = "") -> list[Line]:
    """Return the lines of the verdict."""
    if diagnosis.outcome is Outcome.IMPORTED:
        return [*headline(diagnosis, screen, counts=counts), *_notes(diagnosis.notes, screen)][:MOST]
    return _VerdictLayout(diagnosis, screen).lines()


def headline(
    diagnosis: Diagnosis, screen: Screen, *, counts: str = "", shorten: ShortPaths | None = None
) -> list[Line]:
    """Return the first line of the verdict: what was asked for, and the cause; wrapped where it is too long."""
    shorten = shorten or choose_short_paths(diagnosis, screen.folders)
    has_mark = screen.has_marks and not screen.is_ascii
    room = screen.columns - (_WORKS if diagnosis.outcome is Outcome.IMPORTED else len("✗ : failed"))
    asked = fit(escape(shorten(diagnosis.what)), room, screen.more)
    if diagnosis.outcome is Outcome.IMPORTED:
        return [_works(asked, screen, counts, has_mark)]
    if diagnosis.outcome is Outcome.EXPLAINED and diagnosis.findings:
        title, style = shorten(diagnosis.findings[0].title), FAILED
        begin = f"✗ {asked}:" if has_mark else f"{asked} failed:"
    else:
        title, style = "the evidence does not decide why it failed", BOLD
        if diagnosis.may_have_worked:
            title = "how it ended is not known, nor whether it failed"
        begin = f"? {asked}:"
        if not has_mark:
            begin, title = "", diagnosis.undecided_title.replace(diagnosis.what, asked, 1)
    rows = wrap(f"{begin} {title}".strip(), screen.columns - 2, 3, screen.more)
    if rows[0].startswith(begin):
        lines: list[Line] = [((begin, BOLD), (rows[0][len(begin) :], style))]
    else:
        lines = [((rows[0], style),)]
    return [*lines, *(((f"  {row}", style),) for row in rows[1:])]


def _works(asked: str, screen: Screen, counts: str, has_mark: bool) -> Line:
    begin = f"✓ {asked} works" if has_mark else f"{asked} works"
    if not counts or not has_mark:
        return ((begin if has_mark else f"{begin}: nothing to explain", BOLD),)
    gap = min(_STATE_COLUMN, screen.columns - columns_of(counts)) - columns_of(begin)
    return ((begin, BOLD), (" " * gap + counts, DIM)) if gap > 1 else ((begin, BOLD),)


def _notes(notes: Sequence[str], screen: Screen) -> Iterator[Line]:
    for note in notes:
        rows = wrap(f"note: {note}", screen.columns - 2, 3, screen.more)
        for place, row in enumerate(rows):
            head = "note: " if place == 0 and row.startswith("note: ") else ""
            yield ((head, WARNING), (f"{'' if place == 0 else '  '}{row[len(head) :]}", PLAIN))


@dataclass(frozen=True)
class _Section:
    """A part of the verdict: `build` makes its lines, at most as many as it is given.

    It gets `least` lines before any other gets more, then up to `good`, then what is left.

    `group` says which parts stand together; an empty line is between groups. `kind` is "fix", "cause" or "note" for
    one of several: those that get no line are counted at the end.
    """

    build: Callable[[int], list[Line]]
    least: int
    good: int
    group: int
    kind: str = ""


_FULL = 12
"""Lines that a part is asked for, to learn how many it wants."""


class _VerdictLayout:
    """Shares the lines of one verdict out among its parts."""

    def __init__(self, diagnosis: Diagnosis, screen: Screen) -> None:
        self._diagnosis = diagnosis
        self._screen = screen
        self._more = screen.more
        self._shorten = choose_short_paths(diagnosis, screen.folders)
        self._room = screen.columns - _START
        self._prose = min(self._room, _WIDEST_PROSE)
        is_explained = diagnosis.outcome is Outcome.EXPLAINED and bool(diagnosis.findings)
        self._finding: Finding | None = diagnosis.findings[0] if is_explained else None

    def lines(self) -> list[Line]:
        head = headline(self._diagnosis, self._screen, shorten=self._shorten)
        parts = self._parts()
        wants = [len(part.build(_FULL)) for part in parts]  # the foot needs to know whether a path is shortened
        foot = self._foot([])
        for is_airy in (True, False):
            room = MOST - len(head) - len(foot) - 1
            groups = len({part.group for part in parts})
            room -= groups if is_airy else min(groups, 1)
            shares = _share(parts, wants, room)
            if all(want <= share for want, share in zip(wants, shares, strict=True)):
                break
        foot = self._foot([part.kind for part, share in zip(parts, shares, strict=True) if share])
        built = [(part.group, part.build(share)) for part, share in zip(parts, shares, strict=True) if share]
        spare = MOST - len(head) - len(foot) - 1 - sum(len(lines) for _, lines in built)
        body: list[Line] = []
        last = -1
        for group, lines in built:
            if group != last and spare > 0:
                body.append(())
                spare -= 1
            last = group
            body += lines
        return [*head, *body, (), *foot][:MOST]

    def _parts(self) -> list[_Section]:
        """Return the parts, in the order in which they stand."""
        diagnosis, finding = self._diagnosis, self._finding
        parts: list[_Section] = []
        if self._lines_said():
            is_all_there_is = finding is not None and finding.code in _OWN_WORDS
            parts.append(_Section(self._output, 2 if is_all_there_is else 1, 5 if is_all_there_is else 3, 0))
        elif self._says_more():
            parts.append(_Section(self._python_says, 1, 2, 0))
        if finding is None:
            if diagnosis.crash is not None:
                parts.append(_Section(self._died, 1, 2, 0))
            if diagnosis.undecided:
                parts.append(_Section(self._would_tell, 2, 6, 1))
            parts += [_Section(self._perhaps(one), 1, 2, 2, "cause") for one in diagnosis.findings[:2]]
            # What was lost may be why it does not decide: a recording that was cut off. Where it is from comes last.
            notes = sorted(diagnosis.notes, key=lambda note: note.startswith("recorded: "))[:3]
            parts += [_Section(self._note(note), place == 0, 1, 3, "note") for place, note in enumerate(notes)]
            return parts
        for place, remedy in enumerate(finding.remedies[:2]):
            least = len(self._command(remedy)) or min(len(self._wrap(remedy.what, 3)), 2)
            if place == 0:
                parts.append(_Section(self._fix(remedy), least, least + 1, 1, "fix"))
            else:  # that one is to be seen where the first is only advice
                parts.append(_Section(self._fix(remedy), not finding.remedies[0].command, 0, 1, "fix"))
        if finding.chain:
            parts.append(_Section(self._chain, 3, 4, 2))
        if finding.probes:
            parts.append(_Section(self._looked, 1, 1, 2))
        if finding.explanation:
            parts.append(_Section(self._why, 2, 4, 2))
        others = enumerate(diagnosis.findings[1:3])
        parts += [_Section(self._also(one), place == 0, 1, 2, "cause") for place, one in others]
        parts += [_Section(self._note(note), 0, 0, 2, "note") for note in diagnosis.notes[:1]]
        return parts

    def _labelled(self, label: str, rows: Iterable[str], style: str = PLAIN) -> list[Line]:
        return [
            ((f"{' ' * _INDENT}{label if place == 0 else '':<{_LABEL}}", DIM), (row, style))
            for place, row in enumerate(rows)
        ]

    def _wrap(self, text: str, most: int) -> list[str]:
        return wrap(self._without_tags(self._shorten(text)), self._prose, most, self._more)

    def _without_tags(self, text: str) -> str:
        """The text with short names of extension modules, whose whole names the chain has: "ext….so"."""
        return _TAGGED.sub(lambda name: without_abi_tag(name.group()).replace("…", self._more), text)

    def _lines_said(self) -> list[str]:
        """Return lines that the program wrote, without messages of a loader that the verdict says better."""
        output = [" ".join(line.split()) for line in self._diagnosis.output]
        return [line for line in output if self._finding is None or not _LOADER_WORDS.search(line)]

    def _output(self, most: int) -> list[Line]:
        rows: list[str] = []
        lines = self._lines_said()
        if len(lines) > most:  # those that tell most, in their order
            best = sorted(range(len(lines)), key=lambda at: not _TELLING.search(lines[at]))[:most]
            lines = [lines[at] for at in sorted(best)]
        for place, line in enumerate(lines):
            room = max(min(most, 6) - len(rows) - (len(lines) - place - 1), 1)  # each has a row before any has two
            if room > 1:
                rows += self._wrap(line, room)
            else:  # its head is a date or a function; its end says what is wrong
                rows.append(fit(escape(self._without_tags(self._shorten(line))), self._room, self._more, 1 / 8))
        return self._labelled("it said", rows[:most])

    def _says_more(self) -> bool:
        """Return whether the exception has words of its own, which no loader and no verdict says."""
        error = self._diagnosis.error
        if error is None or not error.message:
            return error is not None and self._finding is None
        return self._finding is None or not _LOADER_WORDS.search(error.message)

    def _python_says(self, most: int) -> list[Line]:
        error = self._diagnosis.error
        assert error is not None
        return self._labelled("python", self._wrap(f"{error.type}: {self._message()}", min(most, 2)))

    def _message(self) -> str:
        """The message of the exception on one line; a path in it has its line ends as they are, to be escaped."""
        error = self._diagnosis.error
        assert error is not None
        parts = error.message.split(error.path) if error.path else [error.message]
        return (error.path or "").join(re.sub(r"\s+", " ", part) for part in parts).strip()

    def _died(self, most: int) -> list[Line]:
        assert self._diagnosis.crash is not None
        return self._labelled("it died", self._wrap(f"of {describe_crash(self._diagnosis.crash)}", min(most, 2)))

    def _would_tell(self, most: int) -> list[Line]:
        texts = self._diagnosis.undecided
        rows: list[str] = []
        for place, text in enumerate(texts):
            room = most - len(rows)
            if room <= 0:
                break
            is_last = room == 1 and place < len(texts) - 1
            rows += self._wrap(f"{text} {self._more}" if is_last else text, min(room, 3))
        return self._labelled("decides", rows)

    def _perhaps(self, finding: Finding) -> Callable[[int], list[Line]]:
        return lambda most: self._labelled("perhaps", self._wrap(f"{finding.title} ({finding.code})", min(most, 2)))

    def _also(self, finding: Finding) -> Callable[[int], list[Line]]:
        label = "perhaps" if finding.confidence is Confidence.POSSIBLE else "also"
        needs = [file_name(step) for step in finding.chain[-2:-1] if not _FRAME.fullmatch(step) and " " not in step]
        by = f", needed by {needs[0]}" if needs and needs[0] not in finding.title else ""
        return lambda most: self._labelled(label, self._wrap(f"{finding.title}{by} ({finding.code})", min(most, 2)))

    def _note(self, note: str) -> Callable[[int], list[Line]]:
        return lambda most: self._labelled("note", self._wrap(note, min(most, 2)))

    def _fix(self, remedy: Remedy) -> Callable[[int], list[Line]]:
        def build(most: int) -> list[Line]:
            command = self._command(remedy)
            what = f"{remedy.what} (tried: the import works)" if remedy.tried else remedy.what
            if not command or len(command) > most:
                has_long_one = bool(remedy_line(remedy, self._diagnosis.system))
                text = f"{what.partition(' (')[0]} (-v has the command, which is long)" if has_long_one else what
                return self._labelled("fix", self._wrap(text, min(most, 3)), FIXED)
            lines = self._labelled("fix", command, FIXED)
            begin = "tried: the import works" if remedy.tried else ""
            about = f"{begin} ({remedy.what})" if begin else f"({remedy.what})"
            for row in self._wrap(about, min(most - len(command), 2)) if most > len(command) else ():
                tried = begin if begin and row.startswith(begin) else ""
                lines.append(((" " * _START, PLAIN), (tried, FIXED), (row[len(tried) :], DIM)))
            return lines

        return build

    def _command(self, remedy: Remedy) -> list[str]:
        """Return the command to type, in rows that a shell reads as one command; [] if it does not fit, or there is
        none."""
        names = dict(reversed(self._screen.programs))
        words = tuple(self._relative(names.get(word, word)) for word in remedy.command)
        line = remedy_line(replace(remedy, command=words), self._diagnosis.system)
        if not line or columns_of(line) <= self._room:
            return [line] if line else []
        if remedy.code:
            return _python_rows(remedy.code, self._room)
        if self._diagnosis.system is System.WINDOWS:
            return []  # no way to go on in the next line serves both of its shells
        rows, row = list[str](), ""
        for word in map(shlex.quote, words):
            joined = f"{row} {word}" if row.strip() else f"{row}{word}"
            if columns_of(joined) + 2 > self._room and row.strip():
                rows.append(f"{row} \\")
                joined = f"  {word}"
            row = joined
        rows.append(row)
        return rows if all(columns_of(one) <= self._room for one in rows) else []

    def _relative(self, word: str) -> str:
        """The word; a path in the reader's current folder, where the command is pasted, relative to that."""
        here = self._screen.folders[-1] if self._screen.folders else ""
        separator = "\\" if self._diagnosis.system is System.WINDOWS else "/"
        if here and word.rstrip(separator) == here:
            return "."
        inside = here and word.startswith(here + separator)
        return f".{separator}{word.removeprefix(here + separator)}" if inside else word

    def _chain(self, most: int) -> list[Line]:
        assert self._finding is not None
        steps = _steps_to_show(self._finding.chain)
        if len(steps) > most:
            left = len(steps) - most + 1
            ends = [*steps[:1], f"{self._more} {left} more", *steps[len(steps) - most + 2 :]]
            steps = ends if most > 2 else steps[-most:]
        state = _STATES.get(self._finding.code, "")
        branch = "`- " if self._screen.is_ascii else "└ "
        lines = []
        for place, step in enumerate(steps):
            start = " " * len(branch) * min(place - 1, 4) + branch if place else ""
            is_last = place == len(steps) - 1
            row = self._step(step, self._room - len(start), state if is_last else "", len(start))
            label = f"{' ' * _INDENT}{'chain' if place == 0 else '':<{_LABEL}}"
            lines.append(((label, DIM), (start, DIM), *row))
        return lines

    def _step(self, step: str, room: int, state: str, before: int) -> Line:
        """A step; the last one with its state in a column at the right."""
        frame = _FRAME.fullmatch(step)
        if frame is not None:
            place = fit(escape(self._shorten(frame["place"])), room, self._more)
            source = cut(escape(frame["source"]), room - columns_of(place) - 2, self._more)
            return ((place, PLAIN), (f"  {source}" if len(source) > 3 else "", DIM))
        name = escape(self._shorten(step))
        if not state:
            return ((fit(name, room, self._more), PLAIN),)
        name = fit(name, max(room - len(state) - 2, 8), self._more)
        gap = max(2, min(_STATE_COLUMN - _START - before, room - len(state)) - columns_of(name))
        return ((name, FAILED), (cut(f"{' ' * gap}{state}", room - columns_of(name), self._more), FAILED))

    def _looked(self, most: int) -> list[Line]:
        assert self._finding is not None
        texts = _looked_texts(self._finding.probes, self._shorten)
        text = next((one for one in texts if columns_of(escape(one)) <= self._room), texts[-1])
        return self._labelled("looked", [cut(escape(text), self._room, self._more)])

    def _why(self, most: int) -> list[Line]:
        assert self._finding is not None
        sentences = re.split(r"(?<=[.!?]) (?=[A-Z/\"'(])", self._shorten.in_prose(self._finding.explanation))
        whole = " ".join(sentences)
        for kept in range(len(sentences), 0, -1):
            text = " ".join(sentences[:kept])
            rows = self._wrap(text if kept == len(sentences) else f"{text} {self._more}", most + 1)
            if len(rows) == most or (len(rows) < most and kept == len(sentences)):
                return self._labelled("why", rows)
            if len(rows) < most:
                break
        return self._labelled("why", self._wrap(whole, most))

    def _foot(self, shown: Sequence[str]) -> list[Line]:
        """Return the last lines: confidence, code, the way to more, the folder that paths are relative to, what is left
        out.

        Argument: `shown`, the kinds of the parts that have lines.
        """
        lines: list[Line] = []
        dot = " - " if self._screen.is_ascii else " · "
        if self._finding is not None:
            confidence, code = self._finding.confidence.value, self._finding.code
            pieces = [confidence, code, f"dlltracer explain {code}"]
            room = self._screen.columns - _INDENT
            if columns_of(dot.join(pieces)) <= room:
                lines.append(((f"  {dot.join(pieces[:2])}{dot}", DIM), (pieces[2], link_style(code, self._screen))))
            else:
                lines.append(((f"  {cut(dot.join(pieces[:2]), room, self._more)}", DIM),))
                more = pieces[2] if len(pieces[2]) <= room else code
                lines.append((("  ", DIM), (cut(more, room, self._more), link_style(code, self._screen))))
        left = self._left_out(shown)
        if self._shorten.used:
            folder = f"in {escape(self._shorten.folder)}"
            room = self._screen.columns - _INDENT
            if left and columns_of(folder) + columns_of(left) + 2 > room:
                lines.append(((f"  {cut(left, room, self._more)}", DIM),))
                left = ""
            folder = fit(folder, room, self._more)
            lines.append(((f"  {folder}{'  ' + left if left else ''}", DIM),))
        elif left:
            lines.append(((f"  {cut(left, self._screen.columns - _INDENT, self._more)}", DIM),))
        return lines

    def _left_out(self, shown: Sequence[str]) -> str:
        """Return counts of what only -v shows."""
        findings, finding = self._diagnosis.findings, self._finding
        there = {
            "fix": len(finding.remedies) if finding is not None else 0,
            "cause": len(findings) - (finding is not None),
            "note": len(self._diagnosis.notes),
        }
        left = {kind: quantity - shown.count(kind) for kind, quantity in there.items()}
        nouns = {"fix": "more fixe" if left["fix"] > 1 else "more fix", "cause": "other cause", "note": "note"}
        texts = [number(quantity, nouns[kind]) for kind, quantity in left.items() if quantity > 0]
        return f"(-v: {', '.join(texts)})" if texts else ""


def link_style(code: str, screen: Screen) -> str:
    """Return the style of a code that leads to its page, where the screen has links."""
    if not screen.documentation:
        return DIM
    from .causes import address_of

    address = address_of(code, screen.documentation)
    return f"{DIM} link {address}" if address else DIM


def _python_rows(code: str, room: int) -> list[str]:
    """A line of Python in rows that Python reads as one: broken within brackets only; [] if a row would not fit."""
    import io
    import tokenize

    depth, cuts = 0, [0]
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
            if depth and token.type == tokenize.OP and token.string in "([{,":
                cuts.append(token.end[1])
    except (tokenize.TokenError, SyntaxError):
        return []
    rows = [""]
    for piece in (code[start:end] for start, end in zip(cuts, [*cuts[1:], len(code)], strict=True)):
        if columns_of(rows[-1] + piece) <= room:
            rows[-1] += piece
        else:
            rows.append(f"  {piece.strip()}")
    return rows if all(columns_of(row) <= room for row in rows) else []


def _share(parts: Sequence[_Section], wants: Sequence[int], room: int) -> list[int]:
    """Return the number of lines for each part: first what it needs at least, in order of weight, then what it
    wants."""
    shares = [0] * len(parts)
    order = sorted(range(len(parts)), key=lambda at: parts[at].least == 0)
    pairs = [*zip(parts, wants, strict=True)]
    leasts, goods = [min(part.least, want) for part, want in pairs], [min(part.good, want) for part, want in pairs]
    for limits in (leasts, goods, wants):
        for at in order:
            more = min(limits[at] - shares[at], room)
            if more > 0:
                shares[at] += more
                room -= more
    return shares


def _steps_to_show(chain: Sequence[str]) -> list[str]:
    """The steps, without imports that a line of Python or the file of the module says."""
    kept = [step for step in chain if not step.startswith("import ")]
    return kept or list(chain)


def _looked_texts(probes: Sequence[Probe], shorten: ShortPaths) -> list[str]:
    """Return texts for the places of a search; the longest text first."""
    vain = [probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]
    present = [probe for probe in vain if probe.outcome is ProbeOutcome.PRESENT]
    if present:
        probe = present[0]
        why = f": {probe.reason}" if probe.reason else ""
        path = shorten(probe.path)
        return [f"{path} is {OUTCOMES[probe.outcome]}{why}", f"{file_name(path)} is {OUTCOMES[probe.outcome]}{why}"]
    if len(vain) == 1:
        probe = vain[0]
        title = RULES[probe.phase].title
        return [f"{title}: {shorten(probe.path)}  {OUTCOMES[probe.outcome]}", f"{title}  {OUTCOMES[probe.outcome]}"]
    rules: dict[str, list[str]] = {}
    for probe in vain:
        folders = rules.setdefault(_rule_name(probe), [])
        folder = probe.path.rpartition("\\" if "\\" in probe.path else "/")[0]
        if probe.phase in _WITH_FOLDERS and folder not in folders:
            folders.append(folder)
    places = f"{number(len(vain), 'place')}, none has it: "
    names = {rule: shorten.folder_name(folders[0]) for rule, folders in rules.items() if len(folders) == 1}
    named = [f"{rule} ({names[rule]})" if rule in names else rule for rule in rules]
    counted = [f"{len(folders)} folders of {rule}" if len(folders) > 1 else rule for rule, folders in rules.items()]
    return [
        f"{places}{', '.join(named)}  (-v)", f"{places}{', '.join(counted)}  (-v)", f"{places}{', '.join(rules)}  (-v)",
        f"{', '.join(rules)}  (-v)", f"{number(len(vain), 'place')}, none has it  (-v)",
    ]  # fmt: skip


_WITH_FOLDERS = (Phase.RPATH, Phase.RUNPATH, Phase.ENVIRONMENT, Phase.ADDED, Phase.PATH)
"""Rules whose folders somebody chose."""


def _rule_name(probe: Probe) -> str:
    if probe.phase is Phase.CACHE:
        return "ld.so.cache"
    if probe.phase is Phase.OTHER and probe.origin:
        return probe.origin
    return _SHORT_RULES.get(probe.phase, RULES[probe.phase].title)


_SHORT_RULES = {
    Phase.IMAGE_FOLDER: "its own folder",
    Phase.APPLICATION: "python.exe's folder",
    Phase.ADDED: "os.add_dll_directory",
    Phase.DIRECT: "its full path",
}

_OWN_WORDS = frozenset((
    "abort", "crash", "crash-in-import", "crash-in-initialiser", "exit-in-import", "exit-in-initialiser",
    "cpp-exception", "library-check-failed", "built-against-other-package",
))  # fmt: skip
"""Causes of which the program itself says the most."""

_STATES = {
    "missing-image": "not found", "package-file-missing": "not found", "library-not-found": "found nothing",
    "missing-at-runtime": "not found", "no-such-file": "not there", "broken-link": "link leads nowhere",
    "first-wins": "lacks what is needed", "missing-symbol": "nothing has it", "missing-version": "version not there",
    "symbol-not-in-library": "lacks it", "not-an-image": "not an image", "truncated-image": "cut short",
    "damaged-image": "damaged", "wrong-machine": "other processor", "unreadable-image": "may not be read",
    "unreadable-folder": "may not be read", "exit-in-initialiser": "its initialiser was running",
    "initialiser-raised": "raised it", "killed": "was loaded last",
    "crash-in-initialiser": "crashed", "crash-in-import": "crashed", "crash": "crashed", "abort": "ended the process",
    "library-path-set-late": "not found", "library-path-wins": "lacks it", "renamed-library": "not found",
    "relative-need": "not there", "origin-lost": "not found", "origin-of-a-link": "not found",
    "link-missing": "not found", "symbol-in-local-scope": "not seen", "python-api-missing": "not in this Python",
    "other-python": "for another Python", "other-platform": "for another platform", "cpu-too-old": "refused",
    "glibc-too-old": "too old", "musl-too-old": "too old",
    "no-such-module": "not found", "requirement-not-installed": "not installed",
    "folder-not-searched": "not searched", "path-not-searched": "not searched", "wrong-copy": "the wrong copy",
    "missing-delayed-image": "not found", "missing-vc-runtime": "not found", "vc-runtime-too-old": "too old",
    "incomplete-python": "not found", "executable-stack": "refused", "text-relocations": "refused",
    "static-tls": "no room", "noexec-mount": "refused", "map-refused": "refused", "illegal-instruction": "crashed",
    "import-hangs": "did not end", "access-denied": "access denied", "blocked-by-policy": "blocked",
    "initialiser-failed": "its DllMain failed", "library-path-ignored": "not found",
    "relative-library-path": "not found",
    "missing-windows-feature": "not found", "conda-not-activated": "not found", "search-restricted": "not searched",
    "exit-in-import": "ended the process", "sanitizer-not-first": "came too late", "no-module-function": "lacks it",
    "library-check-failed": "ended the process", "missing-forwarder": "lacks it", "misaligned-image": "refused",
    "two-openmp-runtimes": "ended the process", "qt-platform-plugin": "not loaded", "stdlib-not-built": "not there",
    "side-by-side": "refused", "invalid-access": "failed", "other-libpython": "of another Python",
    "debug-build": "not found",
}  # fmt: skip
"""What became of the last step of the chain, by the code of the cause."""
