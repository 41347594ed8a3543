"""Words that several rules use for places, copies and rules of a loader."""

from __future__ import annotations

from ..model.probe import Phase
from ..model.words import RULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.tree import Binding
    from .environment import Copy

def describe_rule(phase: Phase | None) -> str:
    """How a copy was chosen, for a sentence: "by RUNPATH"; empty where that is not known."""
    return RULES[phase].found if phase is not None else ""


def describe_choice(binding: Binding) -> str:
    """Which file a need led to, and why: "libx.so.1 is /a/libx.so.1, found by RUNPATH of /b/y.so"."""
    probe = next((probe for probe in binding.probes if probe.path == binding.path), None)
    rule = describe_rule(binding.phase)
    own = binding.phase in (Phase.RPATH, Phase.RUNPATH)
    whose = f" of {probe.origin}" if own and probe is not None and probe.origin else ""
    how = f"taken {rule}" if binding.phase is Phase.LOADED else f"found {rule}{whose}" if rule else ""
    return f"{binding.need} is {binding.path}{f', {how}' if how else ''}"


def describe_copies(copies: tuple[Copy, ...], most: int = 2) -> str:
    """Where other copies lie, for a sentence: "/a/libx.so.1 (a folder of PATH)"."""
    shown = [f"{copy.path} ({copy.where})" for copy in copies[:most]]
    rest = len(copies) - most
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def folder_of(path: str) -> str:
    """The folder of a file of Linux; "/" for one at the top."""
    return path.rpartition("/")[0] or "/"
