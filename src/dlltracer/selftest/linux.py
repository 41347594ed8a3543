"""Questions about Linux: its limits, what becomes of each kind of failed load, and where the loader searches."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

if sys.platform != "linux":
    raise ImportError("only for Linux")

from ..api.explain import explain
from ..binary.reading import read_kernel_file
from ..capture.linux.log_file import create_memory_file
from ..capture.linux.processes import read_status_field
from ..capture.linux.ptrace import availability as ask_ptrace_availability
from ..diagnose.loader_errors import DlProblem, classify_dlerror
from ..errors import BackendUnavailable
from ..host.filesystem import HostFilesystem
from ..host.linux import read_linux_context, read_loaded_paths
from ..host.machine import (
    read_address_space_limit,
    read_cgroup_limit,
    read_mount,
    read_page_size,
    read_security_modules,
)
from ..model.tree import LoadTree
from ..resolve.linux import resolve_linux
from ..trace import Trace
from .step import Answer, CannotAsk, Question, Room, other_machines

_AT_SECURE = 23  # elf.h
_SECONDS = 30
_LOAD = "import ctypes, sys; library = ctypes.CDLL(sys.argv[1]); print(open('/proc/self/maps').read())"
_LOADS = (
    ("a missing library", "needs-missing", DlProblem.MISSING, "missing-image"),
    ("a missing symbol version", "needs-version", DlProblem.MISSING_VERSION, "missing-version"),
    ("a missing symbol", "needs-symbol", DlProblem.MISSING_SYMBOL, "missing-symbol"),
    ("a text file", "text", DlProblem.NOT_AN_IMAGE, "not-an-image"),
    ("no file", "absent", DlProblem.MISSING, "no-such-file"),
)
"""What fails to load: its name, the image, what the loader's message says, and the code of the finding."""


def questions() -> tuple[Question, ...]:
    """Return the questions of the groups "limits", "loader" and "search"."""
    fails = "the load fails, the message is understood, and the verdict is {}"
    return (
        Question("limits", "ptrace", "a parent may watch its child (crashes are located so)", _ask_ptrace),
        Question("limits", "seccomp", "the filter mode of this process is known", _ask_seccomp),
        Question("limits", "secure mode", "this process is not in it (AT_SECURE is 0)", _ask_secure),
        Question("limits", "temporary folder", "code may be loaded from it", _ask_temporary_folder),
        Question("limits", "memory", "what loads may take is known", _ask_memory),
        Question("limits", "security modules", "what SELinux and AppArmor do here is known", _ask_modules),
        Question("limits", "memory files", "a file without a name can be made and written", _ask_memory_file),
        Question("loader", "a good library", "it is loaded, and its data can be read", _ask_good),
        *(
            Question("loader", name, fails.format(code), _load_question(image, problem, code))
            for name, image, problem, code in _LOADS
        ),
        Question("loader", "other machines", "a library for another machine is refused, and named so", _ask_machines),
        Question("search", "DT_RPATH", "$ORIGIN leads beside the library, as the resolver says", _ask_rpath),
        Question("search", "DT_RUNPATH", "$ORIGIN leads beside the library, as the resolver says", _ask_runpath),
        Question("search", "LD_LIBRARY_PATH", "it wins over DT_RUNPATH, as the resolver says", _ask_environment),
        Question("search", "this Python", "it has loaded what the resolver says that it needs", _ask_own_needs),
    )


def _ask_ptrace(room: Room) -> Answer:
    found = ask_ptrace_availability()
    room.note("Yama's ptrace_scope", read_kernel_file("/proc/sys/kernel/yama/ptrace_scope").strip() or "there is none")
    room.note("effective capabilities", read_status_field(os.getpid(), "CapEff"))
    room.note("tracer of this process", read_status_field(os.getpid(), "TracerPid"))
    if not found.ok:
        raise CannotAsk(f"{found.reason}. {found.remedy}".rstrip(". "))
    return True, "allowed"


def _ask_seccomp(room: Room) -> Answer:
    mode = read_status_field(os.getpid(), "Seccomp")
    room.note("filters", read_status_field(os.getpid(), "Seccomp_filters"))
    room.note("no new privileges", read_status_field(os.getpid(), "NoNewPrivs"))
    words = {"0": "no filter", "1": "strict mode", "2": "a filter (a container or sandbox)"}
    return mode in words, words.get(mode, f"Seccomp is {mode!r} in /proc/self/status")


def _ask_secure(room: Room) -> Answer:
    function = ctypes.CDLL(None).getauxval
    function.argtypes, function.restype = (ctypes.c_ulong,), ctypes.c_ulong
    secure = function(_AT_SECURE)
    room.note("user and effective user are the same", os.getuid() == os.geteuid())
    return secure == 0, f"AT_SECURE is {secure}"


def _ask_temporary_folder(room: Room) -> Answer:
    folder = tempfile.gettempdir()
    mount = read_mount(folder)
    if mount is None:
        raise CannotAsk("its mount is not known")
    room.note("file system", mount.kind)
    room.note("options", ", ".join(mount.options))
    if mount.noexec:
        raise CannotAsk("it is mounted noexec; dlltracer's own files there are data, the self-test used another folder")
    path = os.path.join(tempfile.mkdtemp(prefix="dlltracer-selftest-", dir=folder), "good.so")
    try:
        with open(path, "wb") as file:
            file.write(_good_image(room))
        ctypes.CDLL(path)
    finally:
        os.unlink(path)
        os.rmdir(os.path.dirname(path))
    return True, f"{mount.kind}, not noexec"


def _good_image(room: Room) -> bytes:
    with open(room.place("good", "good.so"), "rb") as file:
        return file.read()


def _ask_memory(room: Room) -> Answer:
    space, group = read_address_space_limit(), read_cgroup_limit()
    room.note("page size", read_page_size())
    room.note("address space, bytes used", space.used)
    room.note("address space, limit", space.limit)
    room.note("control group, limit", None if group is None else group.limit)
    room.note("control group, free", None if group is None else group.free)
    limit = "no limit" if space.limit is None else f"a limit of {space.limit} bytes"
    return space.used is not None, f"pages of {read_page_size()} bytes, {limit} of the address space"


def _ask_modules(room: Room) -> Answer:
    modules = read_security_modules()
    for module in modules:
        room.note(module.name, module.enforcement.value)
    return True, ", ".join(f"{module.name} {module.enforcement.value}" for module in modules)


def _ask_memory_file(room: Room) -> Answer:
    descriptor = create_memory_file("dlltracer-selftest")
    try:
        os.write(descriptor, b"x")
        return os.pread(descriptor, 2, 0) == b"x", "it takes text"
    finally:
        os.close(descriptor)


def _ask_good(room: Room) -> Answer:
    library = ctypes.CDLL(room.place("good", "good.so"))
    first = ctypes.c_ubyte.in_dll(library, "dt_answer").value
    # The symbol is the field e_type of the file's own header: 3 for a shared object, in either byte order's low byte.
    return first == 3, f"it is loaded; its data is {first}"


def _load_question(image: str, problem: DlProblem, code: str) -> Callable[[Room], Answer]:
    """Return what asks for a load that fails."""

    def ask(room: Room) -> Answer:
        room.place("dependency", room.dependency)
        if image == "text":
            path = room.write(b"version https://git-lfs.github.com/spec/v1\n" * 4, "text.so")
        else:
            path = room.path("absent.so") if image == "absent" else room.place(image, f"{image}.so")
        return _ask_load(room, path, problem, code)

    return ask


def _ask_load(room: Room, path: str, problem: DlProblem, code: str) -> Answer:
    trace = Trace(backend="auto")
    try:
        with trace:
            ctypes.CDLL(path)
    except BackendUnavailable as error:  # as on PyPy; the steps of the mechanisms fail where one has to work
        raise CannotAsk(error.reason) from None
    except OSError as error:
        understood = classify_dlerror(str(error))
        verdict = explain(error, trace.recording)
        codes = [f"{finding.code} ({finding.confidence.value})" for finding in verdict.findings]
        room.note("message", error)
        room.note("understood as", understood.problem.value)
        room.note("findings", ", ".join(codes))
        room.note("mechanism", trace.recording.backend if trace.recording is not None else None)
        right = understood.problem is problem and bool(codes) and verdict.findings[0].code == code
        return right, f"{error}: {', '.join(codes) or 'no finding'}"
    return False, "it was loaded"


def _ask_machines(room: Room) -> Answer:
    verdicts: list[str] = []
    for machine in other_machines():
        path = room.place("good", f"{machine}.so", machine=machine)
        try:
            ctypes.CDLL(path)
        except OSError as error:
            room.note(machine, error)
            if not verdicts:
                verdicts = [finding.code for finding in explain(error).findings]
        else:
            return False, f"a library for {machine} was loaded"
    return verdicts[:1] == ["wrong-machine"], f"{len(other_machines())} are refused: {', '.join(verdicts)}"


def _ask_rpath(room: Room) -> Answer:
    return _ask_search(room, "needs-good-rpath", "rpath")


def _ask_runpath(room: Room) -> Answer:
    return _ask_search(room, "needs-good-runpath", "runpath")


def _ask_search(room: Room, image: str, folder: str) -> Answer:
    """Load a library whose need lies in a folder beside it, and compare with the resolver."""
    wanted = room.place("dependency", folder, room.dependency)
    top = room.place(image, f"{image}.so")
    predicted = _predict(top, {})
    library = ctypes.CDLL(top)
    mapped = _mapped(room)
    del library  # PyPy takes an image out when nobody has it any more
    return _compare(room, wanted, _dependency_in(predicted, room), mapped)


def _ask_environment(room: Room) -> Answer:
    wanted = room.place("dependency", "environment", room.dependency)
    room.place("dependency", "runpath", room.dependency)
    top = room.place("needs-good-runpath", "top.so")
    folder = os.path.dirname(wanted)
    predicted = _predict(top, {"LD_LIBRARY_PATH": folder})
    environment = {**os.environ, "LD_LIBRARY_PATH": folder}
    ran = subprocess.run(
        [sys.executable, "-c", _LOAD, top], env=environment, capture_output=True, text=True, timeout=_SECONDS,
        check=False, errors="replace", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if ran.returncode:
        room.note("stderr", ran.stderr[-600:])
        return False, f"the load failed in another process (status {ran.returncode})"
    actual = [line.split(None, 5)[5] for line in ran.stdout.splitlines() if line.endswith(room.dependency)]
    return _compare(room, wanted, _dependency_in(predicted, room), actual[0] if actual else None)


def _predict(path: str, environment: dict[str, str]) -> LoadTree:
    return resolve_linux(path, read_linux_context(environment=environment), HostFilesystem())


def _dependency_in(tree: LoadTree, room: Room) -> str | None:
    return next((path for path in tree.images if os.path.basename(path) == room.dependency), None)


def _mapped(room: Room) -> str | None:
    return next((path for path in read_loaded_paths() if os.path.basename(path) == room.dependency), None)


def _compare(room: Room, wanted: str, predicted: str | None, actual: str | None) -> Answer:
    room.note("the loader took", actual)
    room.note("the resolver says", predicted)
    right = all(path is not None and os.path.samefile(path, wanted) for path in (predicted, actual))
    return right, f"both: {actual}" if right else f"the loader took {actual}, the resolver says {predicted}"


def _ask_own_needs(room: Room) -> Answer:
    """The program's own tree: every image of it must be mapped into this process, which runs it."""
    program = os.path.realpath("/proc/self/exe")
    tree = resolve_linux(program, read_linux_context(program=program), HostFilesystem(), program=True)
    mapped = {os.path.realpath(path) for path in read_loaded_paths()}
    lost = [path for path in tree.images if os.path.realpath(path) not in mapped]
    room.note("images of the tree", ", ".join(map(os.path.basename, tree.images)))
    room.note("needs without an image", ", ".join(binding.need for binding in tree.missing))
    if lost or tree.missing:
        return False, f"{len(lost)} of {len(tree.images)} are not mapped: {', '.join(map(os.path.basename, lost))}"
    return True, f"{len(tree.images)} images, all of them mapped"
