"""Copies of a library that have what the copy in use lacks: which would have been taken otherwise, and why not."""

from __future__ import annotations

from ..diagnose.case import Case
from ..diagnose.environment import Change, ShadowedCopy
from ..model.tree import BindingState, LoadTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import ProcessView


def suppliers_of(case: Case) -> dict[str, str]:
    """Names of the libraries that should have what is missing first of all, to the copies in use.

    With a symbol that has no version, that can be any library that the image in need of it asks for.
    """
    if case.versions:
        version = case.versions[0]
        return {version.library: version.provider}
    if not case.symbols or case.tree is None:
        return {}
    symbol = case.symbols[0]
    bound = {
        binding.need: binding.path
        for binding in case.tree.bindings
        if binding.requested_by == symbol.requested_by and binding.state is BindingState.BOUND and binding.path
    }
    return {need: path for need, path in bound.items() if symbol.library in (None, need)}


def find_shadowed(case: Case, view: ProcessView) -> tuple[ShadowedCopy, ...]:
    """What the load would have used if nothing had been loaded before, or without LD_LIBRARY_PATH."""
    if case.tree is None or case.subject is None or case.is_windows or not (case.symbols or case.versions):
        return ()
    used = {binding.need: binding for binding in case.tree.bindings if binding.state is BindingState.BOUND}
    shadowed = []
    for change in Change:
        tree = view.resolve_otherwise(case.subject, change)
        for need, other in _bound(tree).items():
            binding = used.get(need)
            if binding is None or binding.path is None or view.is_same(binding.path, other):
                continue
            if case.versions and need != case.versions[0].library:
                continue
            if view.provides_missing(other, case) and not view.provides_missing(binding.path, case):
                shadowed.append(ShadowedCopy(change, need, binding.path, binding.phase, other))
    return tuple(shadowed)


def _bound(tree: LoadTree | None) -> dict[str, str]:
    return {
        binding.need: binding.path
        for binding in (tree.bindings if tree is not None else ())
        if binding.state is BindingState.BOUND and binding.path
    }
