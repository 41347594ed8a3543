"""Rules about processes that died, and about other Pythons, on cases made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders.failed_case import EXT, absent, bound, case, first, image, import_error, process, tree, verdict, with_run
from dlltracer.diagnose.case import Case, ForeignModule
from dlltracer.diagnose.rules import crash
from dlltracer.model.elf import ElfSymbols
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.failure import Crash, Frame, PythonError
from dlltracer.model.finding import Confidence, Outcome
from dlltracer.model.recording import Losses, Recording
from dlltracer.model.run import StopReason
from dlltracer.model.tree import MissingSymbol

IMPORTING = (Frame("/app/main.py", 3, "<module>", "import ext"), Frame("<frozen importlib._bootstrap>", 9, "_call"))
LATER = (Frame("/app/main.py", 30, "main", "work()"),)
TRACE = Recording(
    "rtld",
    (LoadEvent(EXT, imports=("ext",), timestamp=1.0), LoadEvent("/lib/liby.so", imports=("ext",), timestamp=1.0)),
)


def died(number: int, image: str | None = EXT, **changes: Any) -> Case:
    place = Crash(
        number, {11: "SIGSEGV", 6: "SIGABRT", 7: "SIGBUS", 4: "SIGILL"}.get(number, "?"), 0x7000, image, 0x10, 1, 8
    )
    facts: dict[str, Any] = {
        "crash": place,
        "status": -number,
        "recording": TRACE,
        "frames": IMPORTING,
        "subject": None,
    }
    return case(None, **{**facts, **changes})


def test_in_the_code_of_a_module() -> None:
    found = first(died(11))
    assert (found.code, found.subject, found.confidence) == ("crash-in-import", EXT, Confidence.CERTAIN)
    assert found.chain[:2] == ("/app/main.py:3: import ext", "import ext")


def test_in_a_library_that_others_call() -> None:
    found = first(died(11, "/usr/lib/x86_64-linux-gnu/libc.so.6"))
    assert (found.code, found.subject, found.confidence) == ("crash-in-import", EXT, Confidence.LIKELY)
    assert found.chain[-1].endswith("libc.so.6")


def test_long_after_the_imports() -> None:
    found = first(died(11, "/usr/lib/libc.so.6", frames=LATER))
    assert (found.code, found.subject) == ("crash", "/usr/lib/libc.so.6")
    assert EXT not in found.title


def test_where_nobody_watched_it_may_have_been_later() -> None:
    unwatched = died(11, crash=None, frames=())
    assert first(unwatched).title == f"the process died while or after it loaded {EXT} (SIGSEGV)"
    nothing = first(with_run(unwatched, recording=Recording("rtld")))
    assert nothing.title == "the process died (SIGSEGV), while it ran"


def test_in_an_initialiser() -> None:
    found = first(died(11, "/usr/lib/libc.so.6", initialising="/lib/liby.so"))
    assert (found.code, found.subject, found.confidence) == ("crash-in-initialiser", "/lib/liby.so", Confidence.CERTAIN)


def test_an_abort_with_its_last_words() -> None:
    made = died(6, "/usr/lib/libc.so.6", stderr="no licence for ext\nFatal Python error: Aborted\n")
    assert first(made).code == "abort" and verdict(made).output == ("no licence for ext",)


def test_ctrl_c_is_the_cause_also_where_python_answered_it() -> None:
    answered = PythonError("KeyboardInterrupt", "", ("KeyboardInterrupt", "BaseException"))
    made = case(
        None, error=answered, errors=(answered,), stopped=StopReason.INTERRUPTED, seconds=3.0, subject=None,
        recording=Recording("rtld"),
    )  # fmt: skip
    assert verdict(made).outcome is Outcome.EXPLAINED
    assert first(made).title.startswith("it was interrupted after 3 seconds, and was still running")
    own = with_run(made, errors=(PythonError("ValueError", "mine", ("ValueError", "Exception")),))
    assert verdict(own).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("what", "words"), [
        ("my program.py", ("my program.py",)), ("the code", ("-c", "CODE")),
        ("-m ext.tool", ("-m", "ext.tool")), ("import ext", ("-c", "import ext")),
    ],
)  # fmt: skip
def test_the_debugger_is_given_the_whole_program(what: str, words: tuple[str, ...]) -> None:
    command = first(replace(died(11), what=what)).remedies[0].command
    assert command[command.index("--args") + 2 :] == words


def test_an_instruction_that_the_processor_does_not_know() -> None:
    assert first(died(4)).code == "illegal-instruction"


def test_a_file_cut_short() -> None:
    found = first(died(7, "/lib64/ld-linux-x86-64.so.2", damaged={"/lib/liby.so": "cut short or damaged"}))
    assert (found.code, found.subject, found.confidence) == ("truncated-image", "/lib/liby.so", Confidence.CERTAIN)


@pytest.mark.parametrize("number", [9, 15, 2])
def test_killed_from_outside(number: int) -> None:
    assert verdict(died(number, crash=None)).outcome is Outcome.UNDECIDED


def test_nothing_died() -> None:
    for made in (case("x"), case(None, status=3)):
        assert not list(crash.check_signal(made))


def not_found(name: str, **changes: Any) -> Case:
    message = f"No module named {name!r}"
    error = PythonError("ModuleNotFoundError", message, ("ModuleNotFoundError", "ImportError"), name)
    return case(None, error=error, errors=(error,), subject=None, **changes)


def test_no_such_module() -> None:
    assert (first(not_found("ext")).code, first(not_found("ext")).confidence) == ("no-such-module", Confidence.CERTAIN)


def test_an_exception_in_words_of_its_own_is_no_missing_module() -> None:
    error = PythonError("ModuleNotFoundError", "please install ext[gpu]", ("ModuleNotFoundError", "ImportError"), None)
    assert verdict(case(None, error=error, errors=(error,), subject=None)).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("tag", "code", "words"),
    [
        ("cpython-310-x86_64-linux-gnu", "other-python", "Python 3.10 on x86_64-linux-gnu"),
        ("cpython-313t-x86_64-linux-gnu", "other-python", "Python 3.13 without the GIL"),
        ("cpython-311-x86_64-linux-musl", "other-platform", "x86_64-linux-musl"),
        ("cpython-311-aarch64-linux-gnu", "other-platform", "aarch64"),
        ("cp310-win_amd64", "other-python", "win_amd64"),
    ],
)
def test_the_module_is_there_for_others(tag: str, code: str, words: str) -> None:
    found = first(not_found("pkg._core", foreign_modules=(ForeignModule(f"/site/pkg/_core.{tag}.so", tag),)))
    assert found.code == code and words in found.title


def test_another_libpython() -> None:
    message = "libpython3.9.so.1.0: cannot open shared object file: No such file or directory"
    made = case(message, tree=tree(absent("libpython3.9.so.1.0")))
    assert [(f.code, f.confidence) for f in verdict(made).findings] == [("other-libpython", Confidence.CERTAIN)]
    own = case(message.replace("3.9", "3.11"), tree=tree(absent("libpython3.11.so.1.0")))
    assert first(own).code == "missing-image"


def test_a_second_libpython_in_a_process_that_died() -> None:
    two = tree(bound("libpython3.9.so.1.0", "/lib/libpython3.9.so.1.0"))
    assert "other-libpython" in [f.code for f in verdict(died(11, tree=two)).findings]
    assert verdict(case("other words", tree=two)).outcome is Outcome.UNDECIDED


def test_a_file_without_the_function_of_its_module() -> None:
    message = "dynamic module does not define module export function (PyInit_ext)"
    provided = image(symbols=ElfSymbols((), {"PyInit_other": (None,)}))
    made = case(None, error=import_error(message), errors=(import_error(message),), images={EXT: provided})
    assert first(made).code == "no-module-function" and "PyInit_other" in first(made).explanation


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("_Py_RefTotal", "debug"), ("PyModule_FromDefAndSpec2TraceRefs", "debug"),
        ("_Py_MergeZeroLocalRefcount", "free-threaded"), ("PyPyErr_SetString", "PyPy"), ("GraalPyExc", "GraalPy"),
        ("PyString_FromString", "Python 2"), ("PyUnicodeUCS4_AsUTF8String", "Python 2"),
        ("Py_InitModule4", "Python 2"), ("PyType_GetModuleByDef", "another version"),
    ],
)  # fmt: skip
def test_the_kind_of_python_that_a_file_was_built_for(symbol: str, kind: str) -> None:
    wanted = MissingSymbol(symbol, None, EXT, None)
    found = first(case(f"{EXT}: undefined symbol: {symbol}", symbols=(wanted,), tree=tree()))
    assert found.code == "python-api-missing" and kind in found.explanation


def test_a_failure_of_python_alone_is_said_to_be_one() -> None:
    error = PythonError("ValueError", "no", ("ValueError", "Exception"))
    made = case(None, error=error, errors=(error,), subject=None, process=process(), recording=Recording("rtld"))
    shown = verdict(made)
    assert shown.outcome is Outcome.UNDECIDED and "no loader had a part in it" in shown.undecided[0]
    child = PythonError("CalledProcessError", "no", ("CalledProcessError", "SubprocessError", "Exception"))
    names = PythonError("ValueError", "libx.so.1 is odd", ("ValueError", "Exception"))
    optional = LoadFailedEvent("libopt.so", need="libopt.so", kind=FailureKind.NOT_FOUND)
    for other in (
        with_run(made, recording=None),  # nobody looked
        with_run(made, recording=Recording("snapshot")),  # a mechanism that sees no failures
        with_run(made, recording=Recording("rtld", losses=Losses(undecodable=1))),
        with_run(made, recording=Recording("rtld", (optional, LoadEvent("/lib/liba.so")))),
        with_run(replace(made, error=child), errors=(child,)),
        with_run(replace(made, error=names), errors=(names,)),
    ):
        assert "no loader had a part in it" not in "".join(verdict(other).undecided)
    handled = with_run(made, recording=Recording("rtld", (optional, LoadEvent("/lib/liba.so"))))
    assert any("could do without" in line and "libopt.so" in line for line in verdict(handled).undecided)


def test_a_failure_that_was_handled_is_less_sure() -> None:
    made = case("libg.so: cannot open shared object file: No such file or directory", tree=tree(absent("libg.so")))
    outer = PythonError("KeyError", "'fast'", ("KeyError", "Exception"))
    assert first(with_run(made, errors=(outer, *made.run.errors))).confidence is Confidence.LIKELY
    passed_on = replace(outer, message=f"cannot start: {made.run.errors[0].message}")
    assert first(with_run(made, errors=(passed_on, *made.run.errors))).confidence is Confidence.CERTAIN
