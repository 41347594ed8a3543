"""Keeps the report of a check of an environment, and gives it again as long as nothing has changed that it rests on.

That is: every file below the environment's folders, every file of the system that the search looked at, the names in
the folders where it found nothing, the settings of the process, the machine, and the files of dlltracer itself. All of
it is asked for its state (`host.file_states`), nothing is read. Whatever differs, the check is made anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence

from ..host.environments import PythonEnvironment
from ..host.file_states import FileStates, code_above, describe_process, has_linked_folders, own_folder
from ..host.filesystem import HostFilesystem
from ..host.image_cache import ImageCache, is_settled
from ..model.check import CheckReport
from ..model.decode import decode
from ..model.encode import encode


class KeptReport:
    """The report of one environment.

    Arguments:
        cache: where it is kept.
        environment, folders: what is checked, and all folders that are looked through.
        root: the folder of the system that it belongs to; `None` for this machine.
        target: what the report is on, as it names it.
    """

    def __init__(
        self, cache: ImageCache, environment: PythonEnvironment, folders: Sequence[str], root: str | None, target: str
    ) -> None:
        self._cache = cache
        self._root = root
        self._start = time.time_ns()
        self._is_possible = cache.is_open
        if not self._is_possible:
            return
        own = FileStates()
        own.add_folders([own_folder()])
        tops = dict.fromkeys((*folders, *environment.site_folders))
        self._tree = FileStates()
        self._tree.add_folders(tops, one_system=root is not None)
        self._tree.add_paths(code_above(tops), HostFilesystem())
        is_linked = root is not None and has_linked_folders(environment.site_folders)
        self._is_possible = own.is_complete and self._tree.is_complete and not is_linked
        asked = [
            own.digest(), repr(environment), repr(tuple(tops)), repr(root), target, *describe_process(),
        ]  # fmt: skip
        name = json.dumps(asked).encode("ascii")
        self._name = f"report-{hashlib.blake2b(name, digest_size=20).hexdigest()}"

    def find(self) -> CheckReport | None:
        """Return the report of an earlier check, if it is still true."""
        data = self._cache.get_named(self._name) if self._is_possible else None
        if data is None:
            return None
        try:
            plain = json.loads(data)
            if plain["tree"] != self._tree.digest():
                return None
            paths, names, others = (decode(tuple[str, ...], plain[key], key) for key in ("paths", "names", "others"))
            if plain["rest"] != self._add_up(paths, names, others).digest():
                return None
            report: CheckReport = decode(CheckReport, plain["report"], "report")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # none of ours
        return report

    def keep(self, report: CheckReport, used: Iterable[HostFilesystem], others: Iterable[str]) -> None:
        """Keep a report, unless something that it rests on has changed since just before the check began.

        Arguments: `used`, the files of the system as the search looked at them; `others`, more paths of this machine.
        """
        if not self._is_possible:
            return
        looks = [files.looked_at() for files in used]
        paths = [path for found, _ in looks for path in found]
        names = [folder for _, folders in looks for folder in folders]
        outside = list(dict.fromkeys(others))
        rest = self._add_up(paths, names, outside)
        newest = max(self._tree.newest, rest.newest)
        if not rest.is_complete or not is_settled(newest, self._start, is_coarse=newest % 1_000_000_000 == 0):
            return
        plain = {
            "tree": self._tree.digest(), "paths": paths, "names": names, "others": outside, "rest": rest.digest(),
            "report": encode(report),
        }  # fmt: skip
        self._cache.put_named(self._name, json.dumps(plain, separators=(",", ":")).encode("ascii"))

    def _add_up(self, paths: Sequence[str], names: Sequence[str], others: Sequence[str]) -> FileStates:
        # Without what an earlier object remembers: the states are those of now.
        rest, system = FileStates(), HostFilesystem(self._root)
        rest.add_paths(paths, system)
        rest.add_names(names, system)
        rest.add_paths(others, HostFilesystem())
        return rest
