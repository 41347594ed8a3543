"""Defines the targets of `dlltracer check`, and checks one. Each kind imports what it needs when it is checked."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ..host.machine import is_folder
from ..host.wheel import UnreadableTarget
from ..model.check import CheckReport


class TargetKind(enum.Enum):
    """The kind of a target. The name of a file decides, so that a damaged wheel is reported as a wheel."""

    WHEEL = "wheel"
    CONDA = "conda package"
    SDIST = "source distribution"
    FILE = "file"
    FOLDER = "folder"
    """A virtual environment, a site-packages or `--target` folder, an unpacked tree."""
    ENVIRONMENT = "environment"
    """That of an interpreter: this one, or another."""


_ENDINGS = {
    ".whl": TargetKind.WHEEL, ".conda": TargetKind.CONDA, ".tar.bz2": TargetKind.CONDA, ".tar.gz": TargetKind.SDIST,
    ".tgz": TargetKind.SDIST, ".zip": TargetKind.SDIST, ".tar.xz": TargetKind.SDIST,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckTarget:
    """A target, and what its check depends on. Other processes get it by pickle.

    Attributes:
        path: the file or folder; for an environment the interpreter, "" for the running one.
        kind: what it is.
        root: a folder that holds the system that the target belongs to; `None` for this machine.
        use_cache: whether results of earlier checks may be used and kept.
    """

    path: str
    kind: TargetKind
    root: str | None = None
    use_cache: bool = True


def classify_target(path: str) -> TargetKind:
    """Return what the file or folder at `path` is. What is not there is a file, which cannot be read."""
    if is_folder(path):
        return TargetKind.FOLDER
    name = path.lower()
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), TargetKind.FILE)


def check_target(target: CheckTarget) -> CheckReport:
    """Check one target. The report says what cannot be read; nothing is raised."""
    if target.kind in (TargetKind.FOLDER, TargetKind.ENVIRONMENT):
        from .environment import check_environment

        is_folder = target.kind is TargetKind.FOLDER
        return check_environment(target.path, target.root, is_folder=is_folder, use_cache=target.use_cache)
    from . import packages

    if target.kind is TargetKind.FILE:
        return packages.check_file(target.path, target.root)
    if target.kind is TargetKind.CONDA:
        return packages.check_conda(target.path)
    if target.kind is TargetKind.SDIST:
        return packages.refuse_sdist(target.path)
    return packages.check_wheel(target.path)


def check_anything(target: CheckTarget) -> CheckReport:
    """Return the report on a target, which may be the URL of a file. Never raises: our own error is the report.

    A file behind a URL is downloaded into a private folder, checked, and deleted.
    """
    try:
        if "\0" in target.path:
            return CheckReport(target=target.path, unreadable="its name has a NUL character, which no file's has")
        if "://" not in target.path:
            return check_target(target)
        from ..host.download import downloaded, is_url

        if not is_url(target.path):
            return check_target(target)
        with downloaded(target.path) as path:
            report = check_target(replace(target, path=path, kind=classify_target(path)))
            return replace(report, target=target.path)
    except UnreadableTarget as error:
        return CheckReport(target=target.path, unreadable=str(error))
    except Exception as error:  # noqa: BLE001 - one target must not end the check of thousands
        return CheckReport(target=target.path, unreadable=f"dlltracer failed: {type(error).__name__}: {error}")
