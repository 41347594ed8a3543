"""What a target of `dlltracer check` is, and the check that it gets."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from ..model.check import CheckReport
from .wheels import check_wheel


class TargetKind(enum.Enum):
    """What a target is; its name decides for files, so that a damaged wheel is reported as a wheel."""

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
    if Path(path).is_dir():
        return TargetKind.FOLDER
    name = path.lower()
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), TargetKind.FILE)


def check_target(target: CheckTarget) -> CheckReport:
    """Check one target. The report says what cannot be read; nothing is raised."""
    # Each kind has one line here and a module of its own.
    if target.kind in (TargetKind.FOLDER, TargetKind.ENVIRONMENT):
        from .environment import check_environment

        is_folder = target.kind is TargetKind.FOLDER
        return check_environment(target.path, target.root, is_folder=is_folder, use_cache=target.use_cache)
    if target.kind in (TargetKind.CONDA, TargetKind.FILE, TargetKind.SDIST):
        from . import packages

        if target.kind is TargetKind.FILE:
            return packages.check_file(target.path, target.root)
        if target.kind is TargetKind.CONDA:
            return packages.check_conda(target.path)
        return packages.refuse_sdist(target.path)
    return check_wheel(target.path)
