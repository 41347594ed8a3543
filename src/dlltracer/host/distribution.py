"""Which distribution of Linux this is."""

from __future__ import annotations

import platform


def read_distribution() -> str | None:
    """ID and ID_LIKE of os-release(5), separated by spaces; `None` where there is no such file."""
    try:
        release = platform.freedesktop_os_release()
    except (OSError, ValueError):
        return None
    return " ".join(part for part in (release.get("ID"), release.get("ID_LIKE")) if part) or None
