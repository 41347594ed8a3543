"""Kernel paths as people know them: `\\Device\\HarddiskVolume3\\x` is `C:\\x`. Pure: the drives are given.

Shapes seen in recordings of Windows 7 to 11: a device, `\\SystemRoot\\`, `\\??\\C:\\`, a redirector
(`\\Device\\Mup\\`), and on Windows 7 and 8 one of the system volume without its device (`\\Windows\\System32\\x.dll`).
"""

from __future__ import annotations

import ntpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_REDIRECTORS = ("\\device\\mup\\", "\\device\\lanmanredirector\\")


def display_path(path: str, devices: Mapping[str, str], system_root: str | None) -> str | None:
    """The path with its drive letter or share; `None` where that is not known, or nothing would change.

    Arguments: `devices` maps a device to its drive ("\\Device\\HarddiskVolume3" -> "C:"); `system_root` is the folder
    of Windows ("C:\\Windows").
    """
    lower = path.lower()
    if lower.startswith("\\??\\"):
        return "\\\\" + path[8:] if lower.startswith("\\??\\unc\\") else path[4:]
    for redirector in _REDIRECTORS:
        if lower.startswith(redirector):
            return _share(path[len(redirector) :])
    prefixes = dict(devices)
    if system_root is not None:
        drive, root = ntpath.splitdrive(system_root)
        prefixes |= {"\\SystemRoot": system_root, root: drive + root}
    for prefix, shown in prefixes.items():
        if lower.startswith(prefix.lower() + "\\"):
            return shown + path[len(prefix) :]
    return None


def _share(rest: str) -> str:
    """`[;DfsClient\\][;Z:0123\\]server\\share\\x`, with the parts that only the redirector knows left out."""
    parts = rest.split("\\")
    while parts and (parts[0].startswith(";") or parts[0].lower() == "dfsclient"):
        parts.pop(0)
    return "\\\\" + "\\".join(parts)


def is_same_path(kernel_path: str, shown: str | None, target: str) -> bool:
    """Whether an image's path is the file `target` ("C:\\x\\y.pyd").

    Where the drive of the kernel's path is not known, the rest of the path has to be the same.
    """
    wanted = ntpath.normcase(ntpath.normpath(target))
    if shown is not None:
        return ntpath.normcase(shown) == wanted
    drive, rest = ntpath.splitdrive(wanted)
    return len(drive) == 2 and ntpath.normcase(kernel_path).endswith(rest)


def is_same_name(kernel_path: str, target: str) -> bool:
    """Whether an image has the base name that LoadLibrary was asked for; ".dll" is added where it has no extension
    ("LoadLibraryW", MS Learn)."""
    name = ntpath.basename(target).lower()
    if name.endswith("."):
        name = name[:-1]
    elif "." not in name:
        name += ".dll"
    return ntpath.basename(kernel_path).lower() == name
