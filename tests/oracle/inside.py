"""Runs inside a root, on any C library: trace an import that works and a load that cannot; print what was seen as JSON.

Arguments: the backend to ask for; how many places the pattern of the loader's words is to fit, if not one.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import dlltracer  # noqa: E402
from dlltracer.capture.choose import make_backend  # noqa: E402


def doctor_pattern(places: int) -> None:
    """Show the search for the loader's words an image in which their pattern fits so many places."""
    from dlltracer.capture.linux import debug_mask

    find = debug_mask.find_debug_fd
    debug_mask.find_debug_fd = lambda words: find(words * places)  # type: ignore[assignment]


def loader_state() -> tuple[int, str] | None:
    """The loader's debug mask and the protection of its page; `None` where the C library has no such word."""
    try:
        start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(None), "_rtld_global_ro"))
    except ValueError:
        return None
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            if low <= start < high:
                return ctypes.c_int.from_address(start).value, line.split()[1]
    raise AssertionError("no mapping")


def loader_words() -> tuple[int, int] | None:
    """The indexes of mask and descriptor as the trace found them; `None` if it did not look."""
    log = sys.modules.get("dlltracer.capture.linux.loader_log")
    words = log and log.the_loader_log().words
    return words and (words.mask, words.fd)


def glibc_version() -> str | None:
    """The version as the running C library says it; `None` for another one."""
    try:
        version = ctypes.CDLL(None).gnu_get_libc_version
    except AttributeError:
        return None
    version.restype = ctypes.c_char_p
    text: bytes = version()
    return text.decode()


def shown(event: Any) -> dict[str, object]:
    plain = ("path", "base", "size", "need", "requested_by", "imports", "pid")
    probes = event.probes or ()
    return {name: getattr(event, name) for name in plain} | {
        "type": type(event).__name__,
        "text": str(event),
        "phase": event.phase.name if event.phase else None,
        "kind": event.kind.name if isinstance(event, dlltracer.LoadFailedEvent) and event.kind else None,
        "probes": [(probe.path, probe.phase.name, probe.outcome.name) for probe in probes],
    }


def main() -> None:
    if len(sys.argv) > 2:
        doctor_pattern(int(sys.argv[2]))
    before = loader_state()
    error = None
    trace = dlltracer.Trace(collect=True, backend=sys.argv[1])
    with trace as events:
        import hashlib

        during = loader_state()
        try:
            ctypes.CDLL(os.path.join(HERE, "libdep1.so"))
        except OSError as refused:
            error = str(refused)
    assert events is not None and trace.recording is not None and hashlib.sha256(b"").digest()
    result = {
        "glibc": glibc_version(),
        "python": list(sys.version_info[:2]),
        "backend": trace.recording.backend,
        "notes": trace.recording.notes,
        "undecodable": trace.recording.losses.undecodable,
        "states": (before, during, loader_state()),
        "words": loader_words(),
        "pid": os.getpid(),
        "error": error,
        "filters": make_backend("seccomp").availability().ok,
        "events": [shown(event) for event in events],
    }
    print(json.dumps(result))


try:
    main()
except dlltracer.BackendUnavailable as refusal:
    print(json.dumps({"refused": str(refusal), "reason": refusal.reason, "remedy": refusal.remedy}))
