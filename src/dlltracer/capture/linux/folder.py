"""The folder for the logs of a followed run: made, and given back to who had asked for logs too."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tempfile

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from .loader_log import without_marks
from .log_file import MASK, OUTPUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = "log"

_ACL_FOR_ALL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 6, 0xFFFFFFFF) for tag in (1, 4, 0x20))
"""A default ACL (acl(5)) by which new files can be read and written by owner, group and others: the version, and of
each its tag, rights and no id (linux/posix_acl_xattr.h)."""


class LogFolder:
    """A new folder in an empty one that is ours. `prefix`: for the logs in it. Raises `OSError`."""

    def __init__(self, folder: str) -> None:
        inner = tempfile.mkdtemp(prefix="logs-", dir=folder)
        if os.geteuid() == 0:
            # A program of root's may start others as somebody else. ld.so, if it cannot open the file, writes to their
            # standard output. The name of the inner folder is a secret of those who got it in their environment.
            os.chmod(folder, 0o711)  # noqa: S103 - see above
            os.chmod(inner, 0o733)  # noqa: S103
            # A process may go on as somebody else: what it opened, it must be able to open again, whatever its umask.
            with contextlib.suppress(OSError):
                os.setxattr(inner, "system.posix_acl_default", _ACL_FOR_ALL)
        self.prefix = os.path.join(inner, _NAME)

    def give_back(self, environment: Mapping[str, str]) -> None:
        """Write the logs where the user's own LD_DEBUG would have put them; does nothing without it."""
        if not environment.get(MASK):
            return
        output = environment.get(OUTPUT)
        inner = os.path.dirname(self.prefix)
        for name in sorted(os.listdir(inner) if os.path.isdir(inner) else ()):
            try:
                with open(os.path.join(inner, name), "rb") as file:
                    text = without_marks(file.read())
                if output:
                    with open(output + name.removeprefix(_NAME), "ab") as theirs:
                        theirs.write(text)
                else:
                    os.write(2, text)
            except OSError:  # ld.so would not say more
                continue
