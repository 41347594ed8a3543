"""Whose a file is: ours, the system's, or another user's."""

from __future__ import annotations

import os
import sys

_ADMINISTRATORS = "S-1-5-32-544"
_SYSTEM = "S-1-5-18"
_TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
"""Owners on Windows that can do anything to this user anyway ("Well-known SIDs", MS Learn)."""


def is_trusted_owner(path: str) -> bool:
    """Return whether a file or folder, and what a link leads to, belongs to this user or to the system's administrator.

    Under sudo the user who called it counts too, as for Git (git-config(1), safe.directory). A file that cannot be
    looked at is not trusted. As for Git, permissions do not matter: who lets others write to a file trusts them.
    """
    if sys.platform == "win32":
        try:
            owner = _windows_owner(path)
            return owner is not None and owner in (_windows_user(), _ADMINISTRATORS, _SYSTEM, _TRUSTED_INSTALLER)
        except ImportError:
            return False
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0:
        caller = os.environ.get("SUDO_UID", "")
        trusted |= {int(caller)} if caller.isascii() and caller.isdigit() and len(caller) < 11 else set()
    try:
        return {os.lstat(path).st_uid, os.stat(path).st_uid} <= trusted
    except OSError:
        return False


def describe_owner(path: str) -> str:
    """Return the owner of a file in words: "user nobody (65534)"; the owner of a link if that is not trusted."""
    if sys.platform == "win32":
        try:
            return _windows_owner(path) or "an unknown user"
        except ImportError:
            return "an unknown user: this Python cannot load ctypes"
    try:
        owners = (os.lstat(path).st_uid, os.stat(path).st_uid)
    except OSError:
        return "an unknown user"
    owner = next((uid for uid in owners if uid not in (0, os.geteuid())), owners[0])
    import pwd

    try:
        return f"user {pwd.getpwuid(owner).pw_name} ({owner})"
    except KeyError:
        return f"user {owner}"


if sys.platform == "win32":
    _SE_FILE_OBJECT, _OWNER_SECURITY_INFORMATION, _TOKEN_QUERY, _TOKEN_USER = 1, 1, 8, 1
    _SYSTEM32 = 0x800

    def _windows_owner(path: str) -> str | None:
        """Return the SID of the owner as text (GetNamedSecurityInfoW); `None` if it cannot be read."""
        import ctypes  # not above: a Python whose ctypes cannot load may be what is asked about

        advapi32 = ctypes.WinDLL("advapi32.dll", winmode=_SYSTEM32)
        owner, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
        code = advapi32.GetNamedSecurityInfoW(
            ctypes.c_wchar_p(path), _SE_FILE_OBJECT, _OWNER_SECURITY_INFORMATION, ctypes.byref(owner), None, None, None,
            ctypes.byref(descriptor),
        )  # fmt: skip
        if code:
            return None
        try:
            return _sid_text(owner.value)
        finally:
            _free(descriptor.value)

    def _windows_user() -> str | None:
        """Return the SID of the user of this process as text."""
        import ctypes

        advapi32 = ctypes.WinDLL("advapi32.dll", winmode=_SYSTEM32)
        kernel32 = ctypes.WinDLL("kernel32.dll", winmode=_SYSTEM32)
        kernel32.GetCurrentProcess.restype = ctypes.c_void_p
        token, size = ctypes.c_void_p(), ctypes.c_ulong()
        process = ctypes.c_void_p(kernel32.GetCurrentProcess())
        if not advapi32.OpenProcessToken(process, _TOKEN_QUERY, ctypes.byref(token)):
            return None
        try:
            buffer = (ctypes.c_void_p * 64)()  # TOKEN_USER: a pointer to the SID that follows, of at most 68 bytes
            got = advapi32.GetTokenInformation(
                token, _TOKEN_USER, ctypes.byref(buffer), ctypes.sizeof(buffer), ctypes.byref(size)
            )
            return _sid_text(buffer[0]) if got else None
        finally:
            kernel32.CloseHandle(token)

    def _sid_text(sid: int | None) -> str | None:
        import ctypes

        text = ctypes.c_void_p()
        advapi32 = ctypes.WinDLL("advapi32.dll", winmode=_SYSTEM32)
        if not advapi32.ConvertSidToStringSidW(ctypes.c_void_p(sid), ctypes.byref(text)) or not text.value:
            return None
        try:
            return ctypes.wstring_at(text.value)
        finally:
            _free(text.value)

    def _free(memory: int | None) -> None:
        import ctypes

        ctypes.WinDLL("kernel32.dll", winmode=_SYSTEM32).LocalFree(ctypes.c_void_p(memory))
