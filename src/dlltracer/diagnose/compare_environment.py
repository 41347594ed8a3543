"""What differs around two traces: how they ended, the machines, the interpreters, where they look. Pure."""

from __future__ import annotations

from ..model.difference import Difference, DifferenceKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.saved import SavedTrace


def compare_outcome(first: SavedTrace, second: SavedTrace) -> Iterator[Difference]:
    """How the programs ended, if not alike."""
    one, other = _outcome(first), _outcome(second)
    if one != other:
        yield Difference(DifferenceKind.OUTCOME, "the program", one, other)


def _outcome(trace: SavedTrace) -> str:
    diagnosis = trace.diagnosis
    if diagnosis is not None and diagnosis.findings:
        return f"failed: {diagnosis.findings[0].title} [{diagnosis.findings[0].code}]"
    if trace.crash is not None:
        return f"crashed: {trace.crash.name} in {trace.crash.image or 'unknown code'}"
    if trace.failure is not None and trace.failure.errors:
        error = trace.failure.errors[0]
        return f"failed: {error.type}: {error.message}"
    if trace.status is None:
        return "not known"
    return "ended well" if trace.status == 0 else f"ended with status {trace.status}"


def compare_environment(first: SavedTrace, second: SavedTrace) -> Iterator[Difference]:
    """The machine, Python, the variables and folders by which loaders search; what only one trace knows is no
    difference."""
    known = first.host is not None and second.host is not None, first.process is not None and second.process is not None
    one, other = dict(_facts(first, *known)), dict(_facts(second, *known))
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield Difference(DifferenceKind.ENVIRONMENT, name, one.get(name), other.get(name))
    for name, places, places_there in _lists(first, second):
        gone = [place for place in places if place not in places_there]
        new = [place for place in places_there if place not in places]
        if gone or new:
            yield Difference(
                DifferenceKind.ENVIRONMENT, name, "; ".join(gone) or "nothing else", "; ".join(new) or "nothing else",
                "folders that only one of them has",
            )  # fmt: skip
        elif places != places_there:
            shown = "; ".join(places), "; ".join(places_there)
            yield Difference(DifferenceKind.ENVIRONMENT, name, *shown, "the same in another order")


def _facts(trace: SavedTrace, of_host: bool, of_process: bool) -> Iterator[tuple[str, str]]:
    if of_host and trace.host is not None:
        yield "system", trace.host.description or trace.host.system
        yield "processor", trace.host.machine
        if trace.host.c_library:
            yield "C library", trace.host.c_library
    process = trace.process
    if of_process and process is not None:
        kind = " free-threaded" * process.is_free_threaded + " debug build" * process.is_debug
        yield "Python", f"{'.'.join(map(str, process.version))}, {process.bits}-bit{kind}"
        yield "interpreter", process.executable
        yield from ((name, value) for name, value in process.environment if name not in ("PATH", "LD_LIBRARY_PATH"))


def _lists(first: SavedTrace, second: SavedTrace) -> Iterator[tuple[str, list[str], list[str]]]:
    """Names of lists of folders, and the lists of both; only where both are known."""
    one, other = first.process, second.process
    if one is None or other is None:
        return
    for name in ("LD_LIBRARY_PATH", "PATH"):
        yield name, _split(one.variable(name), first), _split(other.variable(name), second)
    yield "sys.path", list(one.path), list(other.path)
    yield "os.add_dll_directory", list(one.added_folders), list(other.added_folders)


def _split(value: str, trace: SavedTrace) -> list[str]:
    separator = ";" if trace.host is not None and trace.host.system == "windows" else ":"
    return [part for part in value.split(separator) if part]
