"""The machine, as a few words for people."""

from __future__ import annotations

import platform
from dataclasses import replace

from ..model.saved import HostFacts
from .linux_limits import read_c_library
from .place import this_system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.failure import System


def describe_host() -> HostFacts:
    """This machine, without its name: that is nobody's business in the report of a bug."""
    system = this_system()
    library = read_c_library()
    c_library = " ".join(filter(None, (library.name, library.version))) or None
    return HostFacts(system.value, _describe_system(system), platform.machine(), c_library)


def _describe_system(system: System) -> str:
    if system.value == "windows":
        release, build, _, _ = platform.win32_ver()
        return f"Windows {release} build {build}"
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME")
    except (OSError, ValueError):
        name = None
    kernel = f"{'kernel' if system.value == 'linux' else platform.system()} {platform.release()}"
    return f"{name}, {kernel}" if name else kernel


def describe_named_host() -> HostFacts:
    """The same with its name: for a recording, which its owner keeps, and may redact."""
    return replace(describe_host(), name=platform.node() or None)
