"""Runs inside a root, on any C library: load what it is given, and say what was loaded before and after.

Arguments: the file or name to load, then files to load before it.
"""

from __future__ import annotations

import ctypes
import json
import sys


def mapped() -> list[str]:
    with open("/proc/self/maps") as stream:
        rows = [line.rstrip("\n").split(None, 5) for line in stream]
    return list(dict.fromkeys(row[5] for row in rows if len(row) == 6 and row[5][0] == "/"))


keep = [ctypes.CDLL(path, 2) for path in sys.argv[2:]]
before = mapped()
error = None
try:
    keep.append(ctypes.CDLL(sys.argv[1], 2))
except OSError as refused:
    error = str(refused)
caller = getattr(sys.modules["_ctypes"], "__file__", None)
print(json.dumps({"before": before, "after": mapped(), "error": error, "caller": caller}))
