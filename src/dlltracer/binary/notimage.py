"""What a file is that is no image of the expected kind: the ones that people really meet.

Sources: the specification of Git LFS pointers; "Linker Scripts" of the GNU ld manual; MS Learn
"PE Format"; <mach-o/loader.h> and <mach-o/fat.h>; ar(5); elf(5).
"""

from __future__ import annotations

import re

HEAD_SIZE = 512
"""How many bytes from the start of a file `describe_not_image` wants, at most."""

_MACH_O = tuple(bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe"))
_LFS = b"version https://git-lfs.github.com/spec/v1"
_SCRIPTS = (b"/* GNU ld script", b"INPUT(", b"INPUT (", b"GROUP(", b"GROUP (", b"OUTPUT_FORMAT")
_LINK = re.compile(rb"[\w./+-]*\w\.so(?:\.\d+)*")
"""What git (core.symlinks=false), a zip archive or a Windows share makes of a link: a file with the target's name."""
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def describe_not_image(head: bytes) -> str | None:
    """Name what a file is by its first bytes, as a noun phrase that can follow "this is".

    Args:
        head: the first `HEAD_SIZE` bytes, or all if there are fewer.

    Returns:
        The description, or `None` for anything unknown. "an ELF file" and "a PE file" are among the answers: a reader
        asks only about what is not its own.
    """
    if not head:
        return "an empty file"
    if head.startswith(_LFS):
        return "a Git LFS pointer, not the file itself (git lfs pull fetches it)"
    return _describe_binary(head) or _describe_text(head)


def _describe_binary(head: bytes) -> str | None:
    if head.startswith(b"\x7fELF"):
        return "an ELF file (Linux)"
    if head.startswith(b"MZ"):
        return "a PE file (Windows)"
    # A Java class begins as a universal Mach-O file does; there the next number is a version, 45 or higher.
    if head[:4] in _MACH_O or (head.startswith(b"\xca\xfe\xba\xbe") and int.from_bytes(head[4:8], "big") < 45):
        return "a Mach-O file (macOS)"
    if head.startswith((b"!<arch>\n", b"!<thin>\n")):
        return "an ar archive (a static or import library, for linkers only)"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive"
    return None


def _describe_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if text.lower().startswith(_HTML):
        return "an HTML or XML page, perhaps the answer to a failed download"
    if text.startswith(_SCRIPTS):
        return "a script of the GNU linker, which only linkers read"
    if text.startswith(b"#!"):
        return "a script"
    if _LINK.fullmatch(head):
        name = head.decode("utf-8")
        return f"a symbolic link that was stored as a text file: all it says is {name}"
    return None
