"""Keeps private names out of the report of a self-test.

The steps look into no variable of the environment for its value, and name no person. What is left are paths, in facts
and in messages of the system. Of a path the report keeps a word for its beginning and the base name; then every name
that is known for a person or a machine is replaced, wherever it stands.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..model.run import HostFacts, SelfTestStep
from ..report.redact import ORDINARY_WORDS

_POSIX = re.compile(r"(?<![\w<>.~/\\])/[^\s'\"<>|,;:()\[\]]+")
_WINDOWS = re.compile(
    r"(?i)(?<![\w<>])(?:\\\\\?\\|\\\?\?\\)?[a-z]:[\\/][^\s'\"<>|,;:()\[\]]*"
    r"|(?<![\w<>\\])\\\\?[^\s'\"<>|,;:()\\\[\]]+\\[^\s'\"<>|,;:()\[\]]*"
)
_VOLUME = re.compile(r"\\Device\\HarddiskVolume\d+")
_DEVICE = re.compile(r"<elsewhere>(?=<)")
"""What is left of a device whose path was known from its drive on."""
_PUBLIC = re.compile(r"/(?:proc|sys|dev)(?:/|$)|\\Device\\HarddiskVolume\d+$|\\KnownDlls(?:32)?(?:\\|$)")
"""Paths of the system that hold no names of people."""
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/bin", "/bin", "/usr/local/lib")
_SHORTEST = 2
_LONG = 4
"""A shorter name is looked for as a word of its own only."""
_VARIABLES = ("USER", "USERNAME", "LOGNAME", "USERDOMAIN", "COMPUTERNAME", "HOSTNAME", "USERDOMAIN_ROAMINGPROFILE")
_HOMES = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "OneDrive")


class PrivacyFilter:
    """Replaces what is private in texts.

    Arguments:
        roots: folder to the word for it; the longest folder counts.
        names: of people and machines.
    """

    def __init__(self, roots: Mapping[str, str], names: Iterable[str]) -> None:
        folders = {
            form: start + word for folder, word in roots.items() if len(folder) > 3
            for form, start in _forms_of(folder).items()
        }  # fmt: skip
        either = "|".join(re.escape(form) for form in sorted(folders, key=len, reverse=True))
        # A folder ends where its name ends: /home/al is not the beginning of /home/alice.
        self._roots = re.compile(rf"(?:{either})(?![\w-])", re.IGNORECASE) if either else None
        self._words = {form.casefold(): word for form, word in folders.items()}
        kept = sorted({name for name in names if _is_private(name)}, key=len, reverse=True)
        parts = [
            re.escape(name) if len(name) >= _LONG else rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
            for name in kept
        ]
        self._names = re.compile("|".join(parts), re.IGNORECASE) if parts else None

    def replace(self, text: str) -> str:
        """Return the text without what is private."""
        if self._roots is not None:
            text = self._roots.sub(lambda match: self._words.get(match[0].casefold(), "<folder>"), text)
        text = _WINDOWS.sub(lambda match: _shorten(match[0]), text)
        text = _POSIX.sub(lambda match: _shorten(match[0]), text)
        text = _DEVICE.sub("", text)
        return self._names.sub("<name>", text) if self._names is not None else text

    def clean(self, step: SelfTestStep) -> SelfTestStep:
        """Return the step without what is private. Its group, name and expectation are words of ours."""
        reason = None if step.reason is None else self.replace(step.reason)
        facts = tuple((name, self.replace(value)) for name, value in step.facts)
        return replace(step, seen=self.replace(step.seen), reason=reason, facts=facts)

    def clean_host(self, host: HostFacts) -> HostFacts:
        """Return the machine without its name."""
        return replace(host, description=self.replace(host.description), name=None)


def own_filter(folder: str) -> PrivacyFilter:
    """Return the filter for this machine and whoever runs this. `folder` is that of the self-test."""
    home = os.path.expanduser("~")
    roots = {home: "<home>", os.getcwd(): "<current folder>", tempfile.gettempdir(): "<temporary folder>"}
    for variable in _HOMES:
        roots[os.environ.get(variable, "")] = "<home>"
    if sys.platform == "win32":
        roots[os.environ.get("SYSTEMROOT", "")] = "<windows>"
    for prefix in (sys.base_prefix, sys.prefix, os.path.dirname(sys.executable or ""), *_scheme_folders()):
        roots[prefix] = "<python>"
    roots[os.path.dirname(os.path.dirname(os.path.abspath(__file__)))] = "<dlltracer>"
    roots[folder] = "<selftest>"
    return PrivacyFilter(roots, _names_of_people(home) + _names_of_machines())


def _scheme_folders() -> list[str]:
    return [path for name in ("stdlib", "platlib", "scripts") if (path := sysconfig.get_path(name))]


def _names_of_people(home: str) -> list[str]:
    found = [os.environ.get(variable, "") for variable in _VARIABLES]
    found += [os.path.basename(os.environ.get(variable, "").rstrip("\\/")) for variable in _HOMES[:2]]
    found.append(os.path.basename(home.rstrip("\\/")))
    with contextlib.suppress(ImportError, KeyError, OSError):  # a user that the system knows by number only
        found.append(getpass.getuser())
    if sys.platform != "win32":
        import pwd

        try:
            entry = pwd.getpwuid(os.getuid())
            found += [entry.pw_name, *entry.pw_gecos.split(",")[:1]]
        except KeyError:
            pass
    # "Zoe van Dijk" may stand as "ZOEVAN~1" or "zoe" elsewhere.
    return found + [part for name in found for part in re.split(r"[\s._@\\-]+", name) if len(part) >= _LONG]


def _names_of_machines() -> list[str]:
    node = platform.node()
    return [node, node.partition(".")[0]]


def _is_private(name: str) -> bool:
    return len(name) >= _SHORTEST and name.casefold() not in ORDINARY_WORDS and not name.isdigit()


def _forms_of(folder: str) -> dict[str, str]:
    """The spellings of a folder that a system may report: with its links followed, short, with other slashes.

    Each with what is kept of it, before the word for the folder: the device of a path of the kernel.
    """
    plain = {folder.rstrip("\\/"), os.path.realpath(folder).rstrip("\\/")}
    forms = dict.fromkeys(plain, "")
    if sys.platform == "win32":
        forms = _windows_forms(folder) | forms
        forms |= {form.replace("\\", "/"): start for form, start in forms.items()}
    return {form: start for form, start in forms.items() if len(form) > 3}


def _windows_forms(folder: str) -> dict[str, str]:
    """Short and long names (GetShortPathNameW, GetLongPathNameW), and how the kernel names the volume."""
    if sys.platform != "win32":
        return {}
    import ctypes

    from ..capture.windows.system import open_system_library, query_dos_devices

    kernel32 = open_system_library("kernel32.dll")
    forms = {folder}
    for name in ("GetShortPathNameW", "GetLongPathNameW"):
        call = getattr(kernel32, name)
        call.argtypes, call.restype = (ctypes.c_wchar_p, ctypes.c_wchar_p, ctypes.c_uint32), ctypes.c_uint32
        room = ctypes.create_unicode_buffer(32768)
        if call(folder, room, len(room)):
            forms.add(room.value.rstrip("\\"))
    found = dict.fromkeys(forms, "")
    for device, drive in query_dos_devices().items():
        start = device if _VOLUME.fullmatch(device) else "<device>"
        found |= {device + form[2:]: start for form in forms if form[:2].upper() == drive}
        found |= {form[2:]: "" for form in forms if form[:2].upper() == drive and len(form) > 6}
    return found


def _shorten(path: str) -> str:
    """A path of which only a word for its beginning and the base name are kept."""
    if _PUBLIC.match(path):
        return path
    base = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
    is_file = "." in base
    start = "<system>" if path.startswith(tuple(f"{folder}/" for folder in _SYSTEM)) else "<elsewhere>"
    slash = "\\" if "\\" in path else "/"
    return f"{start}{slash}{base}" if is_file else start
