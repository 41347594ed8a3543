"""What workers call in tests of many targets: importable by other processes, and able to die in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from dlltracer.check.targets import CheckTarget
from dlltracer.model.check import CheckReport


def check(target: CheckTarget) -> CheckReport:
    """Report on a target. "die:FOLDER/NAME" kills its worker the first time, "always" each time."""
    word, _, rest = target.path.partition(":")
    if word == "always":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "die" and not Path(rest).exists():
        Path(rest).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "raise":
        raise ValueError(rest)
    return CheckReport(target=target.path, files=os.getpid())
