"""Runs the self-test: a process for each group, two at a time, a limit for each question, and nothing left behind."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ..errors import DlltracerError
from ..host.facts import current_folder
from ..host.scratch import temporary_folder
from ..model.decode import DamagedRecording, decode
from ..model.run import HostFacts, SelfTestStep, StepState
from ..report.redact import ORDINARY_WORDS
from .step import Question, list_groups, list_questions

FOLDER_PREFIX = "dlltracer-selftest-"
STEP_SECONDS = 60.0
"""For one question; then its process is ended."""
ALL_SECONDS = 300.0
"""For all of them; the questions that are left then cannot be asked."""

_POLL = 0.02
_AT_ONCE = 2
"""Groups. A question of "debugger" mostly waits for processes to start; more at once would slow each other's limits."""
_LONGEST = ("debugger", "commands")
"""Begun first, so that none of them is left alone at the end."""
CHILD_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from dlltracer.selftest.step import main; main(sys.argv[1:])"
)


class CannotTest(DlltracerError):
    """The self-test itself could not begin."""


@dataclass
class _Answers:
    """The answers of a process so far: `done` is the number behind its last answer, `current` what it is asking."""

    path: str
    questions: tuple[Question, ...]
    done: int
    current: int | None = None
    since: float = field(default_factory=time.monotonic)
    steps: list[SelfTestStep] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> None:
        """Take the lines that are new. A line that cannot be read is one that its process was killed in."""
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, line: dict[str, object]) -> None:
        if "begun" in line:
            self.current, self.since = int(str(line["begun"])), time.monotonic()
            return
        number = int(str(line["number"]))
        try:
            self.steps.append(decode(SelfTestStep, line.get("step"), "step"))
        except DamagedRecording as error:
            damaged = f"its answer is damaged: {error}"
            self.steps.append(_not_answered(self.questions[number], StepState.FAILED, damaged))
        self.done, self.current = number + 1, None


class SelfTest:
    """One run of the self-test, as a context: its folder is gone at the end of the block.

    Arguments:
        groups: those to ask; `None` for all of this system.
        program: the code of the processes that ask.
        step_seconds: the limit for one question.
    Raises `CannotTest` where no folder can be made.
    """

    def __init__(
        self, groups: Sequence[str] | None = None, *, program: str = CHILD_PROGRAM, step_seconds: float = STEP_SECONDS
    ) -> None:
        self._program = program
        self._step_seconds = step_seconds
        self._groups = tuple(groups) if groups is not None else list_groups()
        self._deadline = time.monotonic() + ALL_SECONDS
        self._stopped = threading.Event()
        try:
            self.folder, self._why = make_folder()
        except OSError as error:
            raise CannotTest(f"no folder can be made for the self-test: {error.strerror or error}") from error
        self.privacy: PrivacyFilter = own_filter(self.folder)

    def __enter__(self) -> SelfTest:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, on_step: Callable[[SelfTestStep], None]) -> None:
        """Ask everything; `on_step` gets the steps of a group when all are answered, without what is private.

        It is called in this thread, and the groups come in their order. After Ctrl-C it gets what was answered
        so far, and the exception goes on when the processes have ended.
        """
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            by_length = sorted(self._groups, key=lambda group: group not in _LONGEST)
            asked = {group: threads.submit(self._ask_group, group) for group in by_length}
            left = list(self._groups)
            try:
                while left:
                    steps = asked[left[0]].result()
                    del left[0]
                    self._give(steps, on_step)
            finally:
                self._stopped.set()
                for group in left:
                    if not asked[group].cancel():
                        self._give(asked[group].result(), on_step)
        on_step(self.privacy.clean(self._clean_up()))

    def _give(self, steps: list[SelfTestStep], on_step: Callable[[SelfTestStep], None]) -> None:
        for step in steps:
            on_step(self.privacy.clean(step))

    def _ask_group(self, group: str) -> list[SelfTestStep]:
        questions = list_questions(group)
        number = 0
        steps: list[SelfTestStep] = []
        while number < len(questions) and not self._stopped.is_set():
            if time.monotonic() > self._deadline:
                over = f"the {ALL_SECONDS:g} s for all steps were over"
                return steps + [_not_answered(one, StepState.NOT_ASKED, over) for one in questions[number:]]
            answers = _Answers(os.path.join(self.folder, f"answers-{group}-{number}"), questions, number)
            end = self._run_child(group, answers)
            steps += answers.steps
            number = answers.done
            if number < len(questions) and not self._stopped.is_set():
                # The process ended in the middle of this question.
                seconds = time.monotonic() - answers.since
                steps.append(_not_answered(questions[number], StepState.FAILED, end, seconds))
                number += 1
        return steps

    def _run_child(self, group: str, answers: _Answers) -> str:
        """Run one process to its end; how it ended, in words."""
        with open(answers.path, "wb"):
            pass
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        command = [sys.executable, "-c", self._program, root, group, str(answers.done), self.folder, answers.path]
        output = os.path.join(self.folder, f"output-{group}")
        with open(output, "wb") as stream:
            try:
                child = subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                    start_new_session=sys.platform != "win32",
                )  # fmt: skip
            except OSError as error:
                return f"no process could be started: {error}"
            try:
                timed_out = self._wait(child, answers)
            finally:
                end_process(child)
        answers.read()
        with open(output, "rb") as stream:
            last = stream.read()[-600:].decode("utf-8", "replace").strip()
        how = _describe_status(child.returncode)
        if timed_out:
            how = f"its process was ended after {self._step_seconds:g} s"
        return f"{how}; it wrote: {last}" if last else how

    def _wait(self, child: subprocess.Popen[bytes], answers: _Answers) -> bool:
        """Wait for the process; whether it took too long for a question."""
        answers.since = time.monotonic()
        while True:
            try:
                child.wait(_POLL)
                return False
            except subprocess.TimeoutExpired:
                answers.read()
            if self._stopped.is_set() or time.monotonic() - answers.since > self._step_seconds:
                return True

    def _clean_up(self) -> SelfTestStep:
        """Remove the folder, and ask whether anything is left of the self-test."""
        begun = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        # Windows removes a mapped file only when its last process has gone, which may take a moment.
        while os.path.exists(self.folder) and time.monotonic() - begun < 5:
            time.sleep(0.1)
            shutil.rmtree(self.folder, ignore_errors=True)
        left = [*_list_left(self.folder), *_own_sessions()]
        return SelfTestStep(
            group="end", name="nothing is left behind", expected="no file, no process and no session of the self-test",
            state=StepState.FAILED if left else StepState.OK, seen=", ".join(left) or "nothing",
            reason="something is left" if left else None, seconds=round(time.monotonic() - begun, 6),
            facts=(("folder", self._why),),
        )  # fmt: skip


def make_folder() -> tuple[str, str]:
    """Make a folder from which code may be loaded; return its path, and why it is where it is. Raises `OSError`."""
    if sys.platform != "linux":
        return tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=temporary_folder()), "in the temporary folder"
    from ..host.machine import read_mount

    first = temporary_folder()
    candidates = (first, os.environ.get("XDG_RUNTIME_DIR") or "", "/dev/shm", os.path.expanduser("~"))  # noqa: S108
    for folder in candidates:
        mount = read_mount(folder) if folder else None
        if mount is None or mount.noexec or not os.access(folder, os.W_OK | os.X_OK):
            continue
        why = "in the temporary folder" if folder == first else "the temporary folder is mounted noexec: in another one"
        return tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=folder), why
    return tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=first), "no writable folder without noexec was found"


def end_process(child: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, if they still run."""
    if sys.platform == "win32":
        if child.poll() is None:
            system = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [system, "/F", "/T", "/PID", str(child.pid)], timeout=10, check=False,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            child.kill()
    else:
        # It was made the leader of a session: what it started is in its group, unless that made one of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _not_answered(question: Question, state: StepState, reason: str, seconds: float = 0.0) -> SelfTestStep:
    return SelfTestStep(
        group=question.group, name=question.name, expected=question.expected, state=state, reason=reason,
        seconds=round(seconds, 6),
    )  # fmt: skip


def _describe_status(status: int) -> str:
    from ..model.words import describe_end

    if status < 0 or status > 255:
        return f"its process {describe_end(status)}"
    return f"its process ended with status {status}"


def _list_left(folder: str) -> list[str]:
    left = ["the folder"] if os.path.exists(folder) else []
    if sys.platform == "linux":
        left += [f"process {pid}" for pid in _processes_of(folder)]
    return left


def _processes_of(folder: str) -> Iterator[int]:
    """Processes that were started with a path of the folder (proc_pid_cmdline(5))."""
    name = os.fsencode(os.path.basename(folder))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if name in file.read():
                yield int(pid)


def _own_sessions() -> list[str]:
    """ETW sessions of processes of dlltracer that run no more."""
    if sys.platform != "win32":
        return []
    from ..capture.windows.etw import bindings
    from ..capture.windows.etw.backend import owner_of
    from ..capture.windows.etw.session import session_names

    owners = [(name, owner_of(name)) for name in session_names(bindings.Etw())]
    return [f"session {name}" for name, owner in owners if owner is not None and not bindings.is_process_alive(*owner)]


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
    roots = {home: "<home>", current_folder(): "<current folder>", tempfile.gettempdir(): "<temporary folder>"}
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
