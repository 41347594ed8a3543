"""Runs in Windows Python: resolves and performs loads, and tells what became of them, with the context before each.

    python resolver_probe.py JOBS.json RESULTS.json

A job: {"file": path or name, "how": "import" | "ctypes" | "standard", "flags": what that means to LoadLibraryExW}; and
for all of them "added", "path" and "cwd".
"""

from __future__ import annotations

import _imp
import ctypes
import importlib.machinery
import json
import os
import sys
from dataclasses import asdict, replace
from typing import Any

from dlltracer.host.filesystem import WindowsFiles
from dlltracer.host.windows import list_loaded_images, read_windows_context
from dlltracer.model.loader_context import LoadFlags
from dlltracer.resolve.windows import resolve_windows


def load(job: dict[str, Any], name: str) -> int | None:
    """The Windows error, `None` if the image was loaded. An import that only lacks PyInit has loaded its file."""
    try:
        if job["how"] == "import":
            loader = importlib.machinery.ExtensionFileLoader(name, job["file"])
            _imp.create_dynamic(importlib.machinery.ModuleSpec(name, loader, origin=job["file"]))
        else:
            ctypes.CDLL(job["file"], **({"winmode": 0} if job["how"] == "standard" else {}))
    except ImportError as error:
        if "does not define module export function" not in str(error):
            return ctypes.windll.kernel32.GetLastError() or -1
    except OSError as error:
        return error.winerror or -1
    return None


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        request = json.load(stream)
    os.chdir(request["cwd"])
    os.environ["PATH"] = ";".join([request["path"], os.environ["PATH"]])
    cookies = [os.add_dll_directory(request["added"])]
    first = read_windows_context(added_folders=(request["added"],))
    results = []
    for job in request["jobs"]:
        before = list(list_loaded_images())
        tree = resolve_windows(
            job["file"],
            replace(first, loaded=tuple(before), flags=LoadFlags(job["flags"])),
            WindowsFiles(resources=True),
        )
        error = load(job, os.path.splitext(os.path.basename(job["file"]))[0])
        new = [path for path in list_loaded_images() if path not in before]
        results.append({"before": before, "error": error, "new": new, "images": list(tree.images)})
    with open(sys.argv[2], "w", encoding="utf-8") as stream:
        json.dump({"context": asdict(first), "results": results}, stream, default=sorted)  # sets
    del cookies


if __name__ == "__main__":
    main()
