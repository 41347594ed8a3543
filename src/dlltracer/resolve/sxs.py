"""Side-by-side assemblies: the folders that a manifest's dependency can stand for.

Sources: MS Learn "Assembly Searching Sequence", "Assembly manifests", "Publisher configuration". Left out: the files
that an assembly's own manifest lists (a file in its folder is taken for listed), languages, configuration files.
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterator

from ..model.pe import MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386, AssemblyReference
from ..model.windows_context import WindowsContext

_PROCESSORS = {MACHINE_I386: "x86", MACHINE_AMD64: "amd64", MACHINE_ARM64: "arm64"}


def assembly_folders(reference: AssemblyReference, beside: str, context: WindowsContext) -> Iterator[str]:
    """Where a file of the assembly may be, in the order in which Windows looks.

    The shared ones of WinSxS come first, the newest that has the same major and minor version (Windows' publisher
    policies lead there); then the private ones.

    Args:
        reference: what the manifest asks for.
        beside: folder of the image or program whose manifest it is.
        context: knows the names in WinSxS, and the machine.
    """
    matches = []
    for name in context.assembly_folders:
        version = _version_of(name, reference, context.machine)
        if version is not None:
            matches.append((version, name))
    for _, name in sorted(matches, reverse=True):
        yield ntpath.join(context.windows_folder, "WinSxS", name)
    yield ntpath.join(beside, reference.name)


def _version_of(folder: str, reference: AssemblyReference, machine: int) -> tuple[int, ...] | None:
    """Version in a name such as amd64_microsoft.vc90.crt_1fc8b3b9a1e18e3b_9.0.30729.9635_none_08e2c157a83ed5da.

    `None` if the folder is no assembly that the reference accepts.
    """
    parts = folder.lower().split("_")
    if len(parts) < 6:
        return None
    processor, name, token, version = parts[0], "_".join(parts[1:-4]), parts[-4], parts[-3]
    wanted = (reference.processor or "*").lower()
    processors = {_PROCESSORS.get(machine, "")} if wanted == "*" else {wanted}
    if processor not in processors or name != reference.name.lower():
        return None
    if token != (reference.public_key_token or token).lower():
        return None
    found, asked = _numbers(version), _numbers(reference.version or version)
    return found if found and asked and found[:2] == asked[:2] and found >= asked else None


def _numbers(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() and len(part) < 10 for part in parts) else None
