"""Questions about names: one DLL by every kind of path, and what loader, kernel and dlltracer call it then.

The kernel names a file after all links are followed; the loader keeps the path that it was given. A mechanism that
compares the two must know how far they may differ.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

if sys.platform != "win32":
    raise ImportError("only for Windows")

import _winapi

from ..capture.windows.image_records import display_path, is_same_name, is_same_path
from ..capture.windows.system import last_error, query_dos_devices
from .step import Answer, CannotAsk, Question, Room
from .windows_api import WindowsApi

_RAW_TARGET, _REMOVE, _EXACT = 1, 2, 4  # DDD_RAW_TARGET_PATH, DDD_REMOVE_DEFINITION, DDD_EXACT_MATCH_ON_REMOVE


def questions() -> tuple[Question, ...]:
    """Return the questions of the group "names"."""
    same = "kernel and request have the same base name"
    kinds: tuple[tuple[str, Callable[[Room], Answer], str], ...] = (
        ("a plain path", _ask_plain, same),
        ("other case and slashes", _ask_case, same),
        ("a short path (8.3)", _ask_short, "the kernel has the long name, or the short one"),
        ("the prefix \\\\?\\", _ask_prefix, same),
        ("a junction", _ask_junction, same),
        ("a link to a folder", _ask_folder_link, same),
        ("a link to a file", _ask_file_link, "the kernel has the name of the file, not of the link"),
        ("SUBST", _ask_subst, same),
        ("a hard link", _ask_hard_link, "the kernel has one of the two names"),
        ("a renamed file", _ask_renamed, "the kernel has the new name, or the former one"),
        ("a UNC path", _ask_unc, same),
    )
    return tuple(
        Question("names", name, expected, ask, on_wine="its kernel names files in its own way")
        for name, ask, expected in kinds
    )


def _load(room: Room, requested: str, *more: str) -> Answer:
    """Load a file by a path, and compare all names of it. `more`: base names that are right as well."""
    api, devices = WindowsApi(), query_dos_devices()
    handle, code = api.load(requested)
    if not handle:
        return False, f"error {code}"
    loader, kernel = api.file_of(handle), api.mapped_name(handle)
    api.free(handle)
    shown = display_path(kernel, devices, os.environ.get("SYSTEMROOT"))
    room.note("requested", requested)
    room.note("loader", loader)
    room.note("kernel", kernel)
    room.note("shown", shown)
    room.note("final path", os.path.realpath(requested))
    by_name, by_path = is_same_name(kernel, requested), is_same_path(kernel, shown, requested)
    room.note("same base name", by_name)
    room.note("same path", by_path)
    right = by_name or any(is_same_name(kernel, name) for name in more)
    return right, f"base name {'equal' if by_name else 'differs'}, path {'equal' if by_path else 'differs'}"


def _place(room: Room, *folders: str) -> str:
    return room.place("good", *folders, f"dt_name_of_more_than_eight_{room.letter}.dll")


def _ask_plain(room: Room) -> Answer:
    return _load(room, _place(room))


def _ask_case(room: Room) -> Answer:
    return _load(room, _place(room).upper().replace("\\", "/"))


def _ask_short(room: Room) -> Answer:
    path = _place(room)
    short = WindowsApi().short_path(path)
    if os.path.basename(short).lower() == os.path.basename(path).lower():
        raise CannotAsk("this volume has no short names")
    return _load(room, short, path)


def _ask_prefix(room: Room) -> Answer:
    return _load(room, "\\\\?\\" + _place(room))


def _ask_junction(room: Room) -> Answer:
    path = _place(room, "real")
    link = os.path.join(room.folder, "junction")
    try:
        _winapi.CreateJunction(os.path.dirname(path), link)
    except (OSError, AttributeError) as error:
        raise CannotAsk(f"no junction can be made: {error}") from error
    try:
        return _load(room, os.path.join(link, os.path.basename(path)))
    finally:
        os.rmdir(link)


def _ask_folder_link(room: Room) -> Answer:
    path = _place(room, "real")
    link = os.path.join(room.folder, "link")
    _link(os.path.dirname(path), link, is_folder=True)
    try:
        return _load(room, os.path.join(link, os.path.basename(path)))
    finally:
        os.rmdir(link)


def _ask_file_link(room: Room) -> Answer:
    path = _place(room)
    link = os.path.join(room.folder, f"dt_link_{room.letter}.dll")
    _link(path, link, is_folder=False)
    return _load(room, link, path)


def _link(target: str, link: str, *, is_folder: bool) -> None:
    try:
        os.symlink(target, link, target_is_directory=is_folder)
    except OSError as error:  # 1314: it needs Administrator or the developer mode
        raise CannotAsk(f"no symbolic link can be made: error {error.winerror}") from error


def _ask_subst(room: Room) -> Answer:
    path = _place(room)
    kernel32 = WindowsApi().kernel32
    free = [f"{letter}:" for letter in "TUVWRSPQ" if not os.path.exists(f"{letter}:\\")]
    if not free:
        raise CannotAsk("no letter of a drive is free")
    target = "\\??\\" + room.folder
    if not kernel32.DefineDosDeviceW(_RAW_TARGET, free[0], target):
        raise CannotAsk(f"no drive can be defined: error {last_error()}")
    try:
        return _load(room, f"{free[0]}\\{os.path.basename(path)}")
    finally:
        kernel32.DefineDosDeviceW(_RAW_TARGET | _REMOVE | _EXACT, free[0], target)


def _ask_hard_link(room: Room) -> Answer:
    path = _place(room)
    link = os.path.join(room.folder, f"dt_hard_{room.letter}.dll")
    try:
        os.link(path, link)
    except OSError as error:
        raise CannotAsk(f"no hard link can be made: error {error.winerror}") from error
    return _load(room, link, path)


def _ask_renamed(room: Room) -> Answer:
    """Loaded, renamed while it is mapped, and loaded again by its new name."""
    api, path = WindowsApi(), _place(room)
    new = os.path.join(room.folder, f"dt_new_{room.letter}.dll")
    handle, code = api.load(path)
    if not handle:
        return False, f"error {code}"
    try:
        os.rename(path, new)
        room.note("kernel, of the first load, after the renaming", api.mapped_name(handle))
        return _load(room, new, path)
    finally:
        api.free(handle)


def _ask_unc(room: Room) -> Answer:
    path = _place(room)
    drive, rest = os.path.splitdrive(path)
    share = f"\\\\localhost\\{drive[0]}${rest}"
    if not os.path.exists(share):
        raise CannotAsk("the administrative share of the drive cannot be reached")
    return _load(room, share)
