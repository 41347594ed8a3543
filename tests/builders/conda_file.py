"""Build conda packages: `build_conda(folder, {"lib/liba.so": data})` is a .tar.bz2, or a .conda with `form="conda"`.

The Zstandard frames in a .conda have their data as they are (raw blocks): RFC 8878, section 3.1.1.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_BLOCK = 1 << 16


def build_conda(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    subdir: str = "linux-64",
    depends: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    members: Sequence[tuple[tarfile.TarInfo, bytes]] = (),
    sums: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
    form: str = "tar.bz2",
) -> Path:
    """Write a package `pkg` 1.0 into a folder, and return its path.

    Args:
        files: path in the prefix to content.
        subdir, depends: of info/index.json.
        links: symbolic links, path to target.
        members: further entries of the archive.
        sums: sums in info/paths.json that differ from those of the files.
        left_out: files that info/paths.json does not list.
        form: "tar.bz2" or "conda".
    """
    paths = [
        {
            "_path": name, "path_type": "hardlink", "size_in_bytes": len(content),
            "sha256": (sums or {}).get(name, hashlib.sha256(content).hexdigest()),
        }
        for name, content in files.items() if name not in left_out
    ]  # fmt: skip
    paths += [{"_path": name, "path_type": "softlink"} for name in links or {}]
    index = {"name": "pkg", "version": "1.0", "subdir": subdir, "depends": list(depends)}
    info = {"info/index.json": json.dumps(index).encode(), "info/paths.json": json.dumps({"paths": paths}).encode()}
    path = folder / f"pkg-1.0-0.{form}"
    entries = [(_entry(name, content), content) for name, content in files.items()]
    entries += [(_link(name, target), b"") for name, target in (links or {}).items()]
    entries += members
    about = [(_entry(name, content), content) for name, content in info.items()]
    if form == "conda":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
            archive.writestr("pkg-pkg-1.0-0.tar.zst", stored_zstd(_tar(entries)))
            archive.writestr("info-pkg-1.0-0.tar.zst", stored_zstd(_tar(about)))
    else:
        path.write_bytes(_tar([*about, *entries], "w:bz2"))
    return path


def stored_zstd(data: bytes) -> bytes:
    """Return a Zstandard frame with the data in raw blocks."""
    head = struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data))  # single segment, 4 bytes of size, no checksum
    blocks = [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)] or [b""]
    body = b""
    for number, block in enumerate(blocks, 1):
        body += (len(block) << 3 | (number == len(blocks))).to_bytes(3, "little") + block
    return head + body


def _entry(name: str, content: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def _tar(entries: Sequence[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()
