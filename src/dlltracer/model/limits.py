"""What a Linux machine allows a process: facts for the diagnosis of a load that the system refused.

How much static TLS is free is not among them. glibc tells nobody: "cannot allocate memory in static TLS block" is the
first that is heard of it, and what it set aside at start (glibc.rtld.optional_static_tls) is not what is left.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """A mounted file system, a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).

    Attributes:
        number: of the mount, unique in the system while it is mounted.
        root: the folder of the file system that is seen at the mount point.
        point: the mount point.
        options: of this mount ("noexec", "ro").
        kind: of the file system ("ext4", "tmpfs").
        source: what is mounted there: a device, or any word.
        system_options: of the file system itself.
    """

    number: int
    root: str
    point: str
    options: tuple[str, ...]
    kind: str
    source: str
    system_options: tuple[str, ...] = ()

    @property
    def noexec(self) -> bool:
        """Whether nothing there may be mapped for execution: mmap(2) fails with EPERM, and so does every load."""
        return "noexec" in self.options


@dataclass(frozen=True)
class MemoryLimit:
    """A limit of memory, in bytes.

    Attributes:
        where: "RLIMIT_AS", or the folder of the control group.
        limit: `None` for no limit, or none that could be read.
        used: what is used of it now; `None` if that could not be read. A control group counts files that are only
            cached, too: they make room when memory is needed.
    """

    where: str
    limit: int | None = None
    used: int | None = None

    @property
    def free(self) -> int | None:
        """What is left, not below 0; `None` where there is no limit or it is not known."""
        return None if self.limit is None or self.used is None else max(0, self.limit - self.used)


class Enforcement(enum.Enum):
    """Whether a security module does what it is there for."""

    OFF = "off"
    """It is not there, or has no rules for this process."""
    PERMISSIVE = "permissive"
    """It reports what it would forbid, and forbids nothing."""
    ENFORCING = "enforcing"
    UNKNOWN = "unknown"
    """It is there, and what it does is not told (a container)."""


@dataclass(frozen=True)
class SecurityModule:
    """A Linux security module, as far as this process is concerned. Whether it forbade anything is in the audit log.

    Attributes:
        name: "SELinux" or "AppArmor".
        enforcement: what it does.
        label: the context or profile of the process; `None` if it has none.
    """

    name: str
    enforcement: Enforcement
    label: str | None = None


@dataclass(frozen=True)
class CLibrary:
    """The C library of a process.

    Attributes: `name`, "glibc" or "musl"; `version` ("2.36"); each `None` where it is not known.
    """

    name: str | None = None
    version: str | None = None
