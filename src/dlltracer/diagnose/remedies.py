"""What to do, for several rules."""

from __future__ import annotations

import ntpath
import posixpath
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
_SITE = {
    System.WINDOWS: re.compile(r"(?:lib|python[\w.-]*)\\site-packages"),
    System.LINUX: re.compile(r"(?:local/)?lib(?:32|64)?/[^/]+/(?:site|dist)-packages"),
}
"""Where pip installs without being told, seen from a prefix. Source: `sysconfig`, of Python and of Debian's."""
_COMMANDS = {
    PackageManager.DPKG: "apt-get install --reinstall {name}",
    PackageManager.RPM: "dnf reinstall {name}",
    PackageManager.APK: "apk fix --reinstall {name}",
    PackageManager.CONDA: "conda install --force-reinstall {name}={version}",
}


def reinstall(owners: Iterable[PackageOwner], process: ProcessFacts | None, why: str = "") -> Iterator[Remedy]:
    """Install the package of a file again: nothing, if none is known.

    Arguments:
        owners: of the file, the best first.
        process: the interpreter that failed.
        why: in a few words.
    """
    for owner in owners:
        if owner.manager is PackageManager.PIP:
            yield reinstall_by_pip(owner.package, owner.version, owner.folder, process, why)
            return
        command = _COMMANDS.get(owner.manager)
        if command is not None:
            if not owner.version:
                command = command.replace("={version}", "")
            text = command.format(name=owner.package, version=owner.version)
            yield Remedy(f"install {owner.package} again{f', {why}' if why else ''}", text)
            return


def reinstall_by_pip(name: str, version: str, folder: str, process: ProcessFacts | None, why: str = "") -> Remedy:
    """Install a Python package again, into the folder where it is.

    Arguments:
        name, version: of the package; an empty version if it is not known.
        folder: where it is installed; empty if that is not known.
        process: the interpreter that failed.
        why: in a few words.
    """
    text = f"install {name} again{f', {why}' if why else ''}"
    command = "python -m pip install --force-reinstall --no-deps"
    if process is not None and _is_target(folder, process):
        # Without it pip would install a second one elsewhere. It leaves folders alone that are there: --upgrade.
        command += f" --target {_word(folder, process.system)} --upgrade"
        text += (
            f" (into {folder}, which is not where this Python installs; pip replaces whole folders there, also what "
            "other packages have in one of the same name)"
        )
    wanted = f"{name}=={version}" if version else name
    return Remedy(text, f"{command} {_word(wanted, process.system if process is not None else System.OTHER)}")


def _is_target(folder: str, process: ProcessFacts) -> bool:
    """Whether pip has to be told that folder (`pip install --target`): it is none of the interpreter's own."""
    windows = process.system is System.WINDOWS
    site = _SITE.get(process.system)
    roots = [root for root in (process.prefix, process.base_prefix, process.user_base) if root]
    if site is None or not folder or not roots:
        return False
    path = ntpath if windows else posixpath
    wanted = path.normcase(path.normpath(folder))
    for root in roots:
        top = path.normcase(path.normpath(root)).rstrip(path.sep) + path.sep
        if wanted.startswith(top) and site.fullmatch(wanted[len(top) :]):
            return False
    return True


def interpreter_of(process: ProcessFacts | None) -> str:
    """The Python that failed, as a word for the shell of its system: cmd.exe or sh; "python" if it is not known."""
    executable = process.executable if process is not None else ""
    return _word(executable, process.system) if process is not None and executable else "python"


def _word(text: str, system: System) -> str:
    if system is not System.WINDOWS:
        return shlex.quote(text)
    return text if _PLAIN_TO_CMD.fullmatch(text) else f'"{text}"'


def for_interpreter(finding: Finding, process: ProcessFacts | None) -> Finding:
    """The finding, with commands of pip for the Python that failed, and not for whatever comes first on PATH."""
    word = interpreter_of(process)
    remedies = tuple(
        remedy if remedy.command is None else replace(remedy, command=_PIP.sub(lambda _: word, remedy.command))
        for remedy in finding.remedies
    )
    return finding if remedies == finding.remedies else replace(finding, remedies=remedies)
