"""The folder for the accounts of a followed run: made, given back to who had asked for accounts too, taken away."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from .account import MASK, OUTPUT
from .tap import without_marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = "account"


class AccountFolder:
    """A new folder. `prefix`: for the accounts in it. Raises `OSError`."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="dlltracer-accounts-")
        inner = tempfile.mkdtemp(dir=self._folder)
        if os.geteuid() == 0:
            # A program of root's may start others as somebody else. ld.so, if it cannot open the file, writes to their
            # standard output. The name of the inner folder is a secret of those who got it in their environment.
            os.chmod(self._folder, 0o711)  # noqa: S103 - see above
            os.chmod(inner, 0o1733)  # noqa: S103
        self.prefix = os.path.join(inner, _NAME)

    def give_back(self, environment: Mapping[str, str]) -> None:
        """Write the accounts where the user's own LD_DEBUG would have put them; does nothing without it."""
        if not environment.get(MASK):
            return
        output = environment.get(OUTPUT)
        inner = os.path.dirname(self.prefix)
        for name in sorted(os.listdir(inner)):
            with open(os.path.join(inner, name), "rb") as file:
                text = without_marks(file.read())
            try:
                if output:
                    with open(output + name.removeprefix(_NAME), "ab") as theirs:
                        theirs.write(text)
                else:
                    os.write(2, text)
            except OSError:  # ld.so would not say more
                continue

    def remove(self) -> None:
        """Take it away."""
        shutil.rmtree(self._folder, ignore_errors=True)
