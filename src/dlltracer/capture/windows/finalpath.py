"""The path that Windows has for a file, as a debugger is told it: without links, short names, substituted drives."""

from __future__ import annotations

import os
from dataclasses import replace

from ...model.request import Request, RequestKind


def as_final(request: Request, cwd: str | None = None) -> Request:
    """A request for an extension module with that path; `cwd` is the current folder of the process, ours if `None`."""
    if request.kind is not RequestKind.EXTENSION:
        return request
    path = os.path.join(cwd or "", request.target)
    try:
        return replace(request, target=os.path.realpath(path))
    except OSError:  # a path of 260 characters or more: Windows does not open what it cannot load either
        return request
