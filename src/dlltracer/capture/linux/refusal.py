"""Look at the places of a failed search: is a file there after all, and why would glibc not take it?

glibc passes over a file made for another machine without a word and reports "No such file". It is looked at when the
trace ends, which is later than the search: the outcome is about the file that is there now.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from ...model.elf import describe_kind
from ...model.events import FailureKind, ImageEvent, LoadFailedEvent, Probe, ProbeOutcome

OWN_PROGRAM = "/proc/self/exe"


def examine_failure(event: LoadFailedEvent, *, program: str = OWN_PROGRAM, folder: str = "") -> LoadFailedEvent:
    """The event with the outcome of each of its probes, and if a file is there, the kind REFUSED with a reason.

    Arguments: `program`, the file that the process runs; `folder`, what its relative paths start from. Both are for
    another process than this one.
    """
    if event.kind is not FailureKind.NOT_FOUND or not event.probes:
        return event
    probes = tuple(_look(probe, program, folder) for probe in event.probes)
    present = {probe.path: probe.reason for probe in probes if probe.outcome is ProbeOutcome.PRESENT}
    if not present:
        return replace(event, probes=probes)
    reason = "; ".join(f"{path}: {why}" for path, why in present.items())
    return replace(event, probes=probes, kind=FailureKind.REFUSED, reason=reason)


def is_same_file(event: ImageEvent, image: str, *, folder: str = "") -> bool:
    """Whether a place tried for `event` is the file of `image`: glibc then takes the image that it has already.

    `folder` as of `examine_failure`.
    """
    for probe in event.probes or ():
        try:
            if os.path.samefile(os.path.join(folder, probe.path), os.path.join(folder, image)):
                return True
        except OSError:
            continue
    return False


def _look(probe: Probe, program: str, folder: str) -> Probe:
    if probe.outcome is ProbeOutcome.NO_ENTRY:
        return probe
    path = os.path.join(folder, probe.path)
    if not os.path.lexists(path):
        return probe if probe.reason else replace(probe, outcome=ProbeOutcome.ABSENT)
    reason = describe_refusal(path, program) or probe.reason or "the loader did not say why it would not take it"
    return replace(probe, outcome=ProbeOutcome.PRESENT, reason=reason)


def _why_unreachable(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES):
            return "leads back to itself" if error.errno == errno.ELOOP else "lies where this user may not look"
    return "does not exist"


def describe_refusal(path: str, program: str = OWN_PROGRAM) -> str | None:
    """Return why a file is no image for a process of `program`, judged by its first 20 bytes (elf(5)).

    `None` if they show no reason.
    """
    if os.path.islink(path) and not os.path.exists(path):
        return f"a symbolic link to {os.readlink(path)}, which {_why_unreachable(path)}"
    if os.path.isdir(path):
        return "a folder, not a file"
    try:
        head = _read_head(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        return _compare_heads(head, _read_head(program))
    except (OSError, IndexError):
        return None  # the program itself is gone, or is none


def _compare_heads(head: bytes, own: bytes) -> str | None:
    if head[:4] != b"\x7fELF":
        return "not an ELF file" if head else "an empty file"
    if len(head) < 20:
        return f"an ELF file cut short ({len(head)} bytes)"
    made, wanted = _kind_of(head), _kind_of(own)
    return None if made == wanted else f"made for {describe_kind(*made)}, this process is {describe_kind(*wanted)}"


def _kind_of(head: bytes) -> tuple[int, bool, int]:
    """Bits, byte order and machine, as `describe_kind` takes them."""
    little = head[5] == 1
    return 32 if head[4] == 1 else 64, little, int.from_bytes(head[18:20], "little" if little else "big")


def _read_head(path: str) -> bytes:
    # O_NONBLOCK: a probe may be a fifo, and reading must not wait for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, 20)
    finally:
        os.close(fd)
