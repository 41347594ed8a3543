"""Makes dlltracer.pyz, dlltracer in one file: `python tools/build_pyz.py FOLDER [WHEEL]`.

It holds the wheel and what it needs, without their compiled parts: so it runs with every Python from 3.10 on, on every
system, where nothing can be installed. Without WHEEL, the one of this checkout is built. Needs pip, and an index.

The file unpacks itself on its first run: child processes are started by the path of a file, and a program that is
examined with another Python gets dlltracer from there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "dlltracer.pyz"
OLDEST = "3.10"
SHEBANG = b"#!/usr/bin/env python3\n"
COMPILED = (".so", ".pyd", ".dylib", ".pyc")
OF_OLDEST = ("tomli>=2",)
"""What only Python 3.10 needs (pyproject.toml): pip goes by the version that it runs on."""
LEFT_OUT = ("bin", "Scripts", "share", "__pycache__")

MAIN = '''\
"""dlltracer in one file. It unpacks itself into a folder that only its user can write to, once for each build."""

import sys

BUILD = "@BUILD@"


def main():
    if sys.version_info < (3, 10):
        sys.exit("dlltracer.pyz: error: Python 3.10 or later is needed, and this is %d.%d" % sys.version_info[:2])
    import os

    archive = os.path.dirname(os.path.abspath(__file__))
    try:
        folder = find_folder(archive)
    except OSError as error:
        sys.exit("dlltracer.pyz: error: its files cannot be unpacked: %s" % error)
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) != archive]
    sys.path.insert(0, folder)
    from dlltracer.__main__ import main as run

    run()


def find_folder(archive):
    """Return the folder of the unpacked files: kept in the user's cache; where that cannot be, for this run only."""
    import os
    import tempfile

    cache = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    home = os.path.join(cache or os.path.join(os.path.expanduser("~"), ".cache"), "dlltracer-pyz")
    kept = os.path.join(home, BUILD)
    if is_ours(home) and is_ours(kept):
        return kept
    try:
        os.makedirs(home, 0o700, exist_ok=True)
        if not is_ours(home):
            raise OSError("%s may be written to by others" % home)
        part = tempfile.mkdtemp(prefix=".part-", dir=home)
    except OSError:
        return unpack_for_now(archive)
    try:
        unpack(archive, part)
        os.rename(part, kept)
    except OSError:
        import shutil

        shutil.rmtree(part, ignore_errors=True)
        if not is_ours(kept):  # another process was not the reason
            return unpack_for_now(archive)
    return kept


def is_ours(folder):
    """Whether it is a folder of this user, to which nobody else can write."""
    import os
    import stat

    try:
        found = os.lstat(folder)
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    return os.name == "nt" or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)


def unpack_for_now(archive):
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="dlltracer-pyz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    unpack(archive, folder)
    return folder


def unpack(archive, folder):
    import zipfile

    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder, [name for name in packed.namelist() if name != "__main__.py"])


if __name__ == "__main__":
    main()
'''


def run(*command: str | Path) -> None:
    """Run it; `subprocess.CalledProcessError` if it fails."""
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL)


def gather(wheel: Path, folder: Path) -> None:
    """Install the wheel and all that it needs on any of its Pythons into the folder, without compiled parts."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--no-warn-script-location"]
    of_oldest = ["--only-binary=:all:", "--python-version", OLDEST, "--implementation", "cp", "--target"]
    run(*pip, *of_oldest, folder, wheel)
    run(*pip, "--no-deps", "--platform", "any", *of_oldest, folder, *OF_OLDEST)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.name.endswith(COMPILED):
            path.unlink()
    for name in LEFT_OUT:
        shutil.rmtree(folder / name, ignore_errors=True)


def pack(folder: Path, target: Path) -> None:
    """Pack the folder: the same files give the same bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "direct_url.json")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    entries = [("__main__.py", MAIN.replace("@BUILD@", digest.hexdigest()[:20]).encode())]
    entries += [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]
    with target.open("wb") as stream:
        stream.write(SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in entries:
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                packed.writestr(info, data)
    target.chmod(0o755)


def build_pyz(wheel: Path, folder: Path) -> Path:
    """Make the file in `folder`, and return its path."""
    target = folder / NAME
    with tempfile.TemporaryDirectory() as room:
        gather(wheel, Path(room))
        pack(Path(room), target)
    return target


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        print(os.fspath(build_pyz(Path(sys.argv[2]), folder)))
        return
    with tempfile.TemporaryDirectory() as room:
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", room, ROOT)
        (wheel,) = Path(room).glob("*.whl")
        print(os.fspath(build_pyz(wheel, folder)))


if __name__ == "__main__":
    main()
