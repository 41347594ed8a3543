"""Room for the files that a traced run has open: ours beside those of the program, whose own limit stays as it is."""

from __future__ import annotations

import contextlib
import sys

ENOUGH = 256
"""Descriptors that a run of ours can do with; a log lies at 200 or above, out of the program's way."""


class DescriptorLimit:
    """Raises our limit of open files (RLIMIT_NOFILE) for a block, where it is very low: `ulimit -n 6`.

    A child inherits the raised limit; `give_back` sets it to what the user had (prlimit(2)) as soon as it has started.
    Nothing is done where the system refuses: the soft limit can be raised to the hard one, that one by root only.
    """

    def __init__(self) -> None:
        self._former: tuple[int, int] | None = None

    def __enter__(self) -> DescriptorLimit:
        if self._former is not None:
            return self  # raised already
        if sys.platform == "linux":
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            if soft != resource.RLIM_INFINITY and soft < ENOUGH:
                most = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
                for limits in ((ENOUGH, max(ENOUGH, hard)), (most, hard)):
                    with contextlib.suppress(OSError, ValueError):
                        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                        self._former = (soft, hard)
                        break
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux" and self._former is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, self._former)
            self._former = None

    def allows(self, number: int) -> bool:
        """Return whether so many files can be open, ours of now among them."""
        if sys.platform == "linux":
            import resource

            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return soft == resource.RLIM_INFINITY or soft >= number
        return True

    def give_back(self, pid: int) -> None:
        """Let a child have the limit that the user set."""
        if sys.platform == "linux" and self._former is not None:
            import resource

            with contextlib.suppress(OSError):  # it has ended
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._former)
