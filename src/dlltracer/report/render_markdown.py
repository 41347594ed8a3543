"""Renders a trace as Markdown for a bug report: what failed, why, on what, and the tree, folded; at most `MOST` lines.

Source of what GitHub makes of text: the GitHub Flavored Markdown Spec (github.github.com/gfm). Whatever comes from
files stands in code, the one place where GitHub finds no mark-up, no HTML and no links, and mentions nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..model.failure import ProcessFacts
from ..model.finding import Diagnosis, Outcome
from ..model.run import SavedTrace
from ..model.screen import Screen, escape
from .causes import address_of
from .counts import count
from .drawing import ASCII, UNICODE, Guides, Line, number
from .render_short import short_lines
from .render_text import lay_out
from .render_verdict import verdict_lines

MOST = 60
"""Lines in all."""

_WIDEST = 400
"""Characters of a line: a path of Windows may have 32767."""
_DETAILS = 27
"""Lines of the details of the verdict; usually they fit."""
_PAGE = 100
"""Columns of the verdict: an issue is wider than a terminal."""


def render_markdown(saved: SavedTrace, *, ascii_only: bool = False, documentation: str = "") -> str:
    """The trace for an issue. What does not fit is counted where it was cut.

    `ascii_only`: what is drawn is drawn with ASCII characters; names stay as they are. `documentation`: the address of
    the site, whose page of the cause is linked to.
    """
    guides = ASCII if ascii_only else UNICODE
    head = [*_title(saved), "", *_facts(saved), "", *_verdict(saved, guides), *_page(saved, documentation)]
    details = [*_details(saved, guides)]
    tree = _tree(saved, MOST - len(head) - len(details), guides)
    return "".join(f"{line}\n" for line in (*head, *details, *tree))


_WHOLE = 120
"""Lines of the whole verdict, where a summary of many verdicts has room for them."""


def render_markdown_verdict(diagnosis: Diagnosis) -> str:
    """Return one verdict under a heading of its own, for a page that has others beside it."""
    lines = [_plain(line) for line in verdict_lines(diagnosis)]
    screen = Screen(width=_PAGE, is_ascii=False, folders=())
    text = [
        f"### dlltracer: {code(diagnosis.what)} failed", "",
        *code_block(_plain(line) for line in short_lines(diagnosis, screen)), "",
        "<details><summary>every place, all evidence</summary>", "",
        *code_block(_cut(lines, _WHOLE, UNICODE)), "", "</details>", "",
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in text)


def _title(saved: SavedTrace) -> Iterator[str]:
    diagnosis = saved.diagnosis
    what = code((diagnosis.what if diagnosis is not None else "") or saved.what or "a program")
    if diagnosis is None:
        yield f"### dlltracer: what {what} loads"
    elif diagnosis.outcome is Outcome.IMPORTED:
        yield f"### dlltracer: {what} works"
    elif diagnosis.may_have_worked:
        yield f"### dlltracer: how {what} ended is not known"
    else:
        yield f"### dlltracer: {what} failed"


def _facts(saved: SavedTrace) -> Iterator[str]:
    yield "| | |"
    yield "| --- | --- |"
    written = f"{code(saved.written_by, table=True)}, " if saved.written_by else ""
    yield f"| dlltracer | {written}traced by {code(saved.recording.backend, table=True)} |"
    if saved.run.process is not None:
        yield f"| Python | {code(_python(saved.run.process), table=True)} |"
    host = saved.host
    if host is not None:
        system = ", ".join(filter(None, (host.description or host.system, host.machine)))
        yield f"| System | {code(system, table=True)} |"
        if host.c_library:
            yield f"| C library | {code(host.c_library, table=True)} |"


def _python(process: ProcessFacts) -> str:
    version = ".".join(map(str, process.version))
    kinds = [f"{process.bits} bits"]
    kinds += ["debug build"] if process.is_debug else []
    kinds += ["free-threaded"] if process.is_free_threaded else []
    return f"{version}, {', '.join(kinds)}, {process.executable}"


def _verdict(saved: SavedTrace, guides: Guides) -> Iterator[str]:
    if saved.diagnosis is None or saved.diagnosis.outcome is Outcome.IMPORTED:
        return
    folder = saved.run.process.current_folder if saved.run.process is not None else ""
    screen = Screen(width=_PAGE, is_ascii=guides is ASCII, folders=(folder,) if folder else ())
    yield from code_block(_plain(line, guides) for line in short_lines(saved.diagnosis, screen))
    yield ""


def _page(saved: SavedTrace, documentation: str) -> Iterator[str]:
    """The link to the page of the cause; nothing where nobody else could open it."""
    diagnosis = saved.diagnosis
    if diagnosis is None or diagnosis.outcome is not Outcome.EXPLAINED or not documentation.startswith("https:"):
        return
    cause = diagnosis.findings[0].code if diagnosis.findings else ""
    address = address_of(cause, documentation)
    if address:
        yield f"[{cause}]({address}): what it means, how to check it, how to fix and how to avoid it"
        yield ""


def _details(saved: SavedTrace, guides: Guides) -> Iterator[str]:
    """The whole verdict, folded: every place, all evidence, the notes."""
    if saved.diagnosis is None or saved.diagnosis.outcome is Outcome.IMPORTED:
        return
    lines = [_plain(line, guides) for line in verdict_lines(saved.diagnosis, guides.more)]
    yield "<details><summary>every place, all evidence</summary>"
    yield ""
    yield from code_block(_cut(lines, _DETAILS - 7, guides))
    yield ""
    yield "</details>"
    yield ""


def _tree(saved: SavedTrace, room: int, guides: Guides) -> Iterator[str]:
    """The tree, folded: all of it, or where something failed that and what leads to it."""
    recording = saved.recording
    failed_only = bool(recording.failures)
    lines = [_plain(line, guides) for line in lay_out(recording, failed_only=failed_only, guides=guides)]
    counts = count(recording)
    title = f"{number(counts.loaded, 'image')} loaded, {counts.failed} failed"
    if failed_only:
        title += "; below is what failed, and what leads to it"
    yield f"<details><summary>{title}</summary>"
    yield ""
    yield from code_block(_cut(lines, room - 6, guides))
    yield ""
    yield "</details>"


def _plain(line: Line, guides: Guides = UNICODE) -> str:
    text = escape("".join(piece for piece, _ in line))
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}{guides.more} {len(text) - _WIDEST} more characters"


def _cut(lines: list[str], most: int, guides: Guides) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"{guides.more} {number(len(lines) - most + 1, 'more line')}"]


def code_block(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines as code, between fences that are longer than any row of backticks in them."""
    lines = list(lines)
    fence = "`" * max(3, 1 + _longest_ticks("\n".join(lines)))
    yield f"{fence}text"
    yield from lines
    yield fence


def code(text: str, *, table: bool = False) -> str:
    """The text as code within a line; in a `table` a bar would end the cell, also in code."""
    text = _plain(((text, ""),)).strip() or " "
    ticks = "`" * (1 + _longest_ticks(text))
    # One space within is taken away again on both sides; without, a backtick of the text would be part of the fence.
    inner = f" {text} " if text[0] == "`" or text[-1] == "`" else text
    return f"{ticks}{inner.replace('|', chr(92) + '|') if table else inner}{ticks}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
