"""What to do, for several rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..model.finding import Remedy
from ..model.provider import PackageManager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.provider import PackageOwner

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
