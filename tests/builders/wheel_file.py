"""Build wheels: files and metadata in a zip archive, with a RECORD that is true unless a test asks for another."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def build_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    tag: str = "cp312-cp312-manylinux_2_17_x86_64",
    wheel_tags: Sequence[str] | None = None,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    record: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """Write a wheel of the package `pkg` into a folder, and return its path.

    Args:
        files: path in the wheel to content.
        tag: of the file name.
        wheel_tags: of the metadata; those of the name without more.
        requires: lines of Requires-Dist.
        requires_python: the field Requires-Python.
        record: lines of RECORD that differ: path to the rest of the line.
        left_out: paths that RECORD does not list.
    """
    info = "pkg-1.0.dist-info"
    interpreter, abi, platforms = tag.split("-")
    own = [f"{interpreter}-{abi}-{platform}" for platform in platforms.split(".")]
    metadata = ["Metadata-Version: 2.1", "Name: pkg", "Version: 1.0", *(f"Requires-Dist: {one}" for one in requires)]
    if requires_python is not None:
        metadata.append(f"Requires-Python: {requires_python}")
    wheel = ["Wheel-Version: 1.0", "Root-Is-Purelib: false", *(f"Tag: {one}" for one in wheel_tags or own)]
    everything = {
        **files, f"{info}/METADATA": ("\n".join(metadata) + "\n\n").encode(),
        f"{info}/WHEEL": ("\n".join(wheel) + "\n").encode(),
    }  # fmt: skip
    lines = []
    for name, content in everything.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rest = (record or {}).get(name, f"sha256={digest},{len(content)}")
        if name not in left_out:
            lines.append(f"{name},{rest}\n")
    lines += [f"{name},{rest}\n" for name, rest in (record or {}).items() if name not in everything]
    path = folder / f"pkg-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in everything.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", "".join(lines) + f"{info}/RECORD,,\n")
    return path
