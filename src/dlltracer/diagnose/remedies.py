"""What to do, for several rules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..model.failure import System
from ..model.finding import Finding, Remedy
from ..model.provider import PackageManager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.failure import ProcessFacts
    from ..model.provider import PackageOwner

_PIP = re.compile(r"(?<![\w./\\-])python(?= -m pip )")
"""Any Python, in the commands of rules and tables: the one that failed takes its place."""
_PLAIN_TO_CMD = re.compile(r"[\w:\\/.+~-]+")
_COMMANDS = {
    PackageManager.PIP: "python -m pip install --force-reinstall --no-deps {name}=={version}",
    PackageManager.DPKG: "apt-get install --reinstall {name}",
    PackageManager.RPM: "dnf reinstall {name}",
    PackageManager.APK: "apk fix --reinstall {name}",
    PackageManager.CONDA: "conda install --force-reinstall {name}={version}",
}


def reinstall(owners: Iterable[PackageOwner], why: str = "") -> Iterator[Remedy]:
    """Install the package of a file again: nothing, if none is known. `why`, in a few words."""
    for owner in owners:
        command = _COMMANDS.get(owner.manager)
        if command is not None:
            if not owner.version:
                command = command.replace("=={version}", "").replace("={version}", "")
            text = command.format(name=owner.package, version=owner.version)
            yield Remedy(f"install {owner.package} again{f', {why}' if why else ''}", text)
            return


def interpreter_of(process: ProcessFacts | None) -> str:
    """The Python that failed, as a word for the shell of its system: cmd.exe or sh; "python" if it is not known."""
    executable = process.executable if process is not None else ""
    if process is None or not executable:
        return "python"
    if process.system is not System.WINDOWS:
        return shlex.quote(executable)
    return executable if _PLAIN_TO_CMD.fullmatch(executable) else f'"{executable}"'


def for_interpreter(finding: Finding, process: ProcessFacts | None) -> Finding:
    """The finding, with commands of pip for the Python that failed, and not for whatever comes first on PATH."""
    word = interpreter_of(process)
    remedies = tuple(
        remedy if remedy.command is None else replace(remedy, command=_PIP.sub(lambda _: word, remedy.command))
        for remedy in finding.remedies
    )
    return finding if remedies == finding.remedies else replace(finding, remedies=remedies)
