"""Codes of Windows, and the words of the loaders of Linux; the loader of this system makes the real messages."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.loader_errors import DlError, DlProblem, classify_dlerror, loader_messages
from dlltracer.diagnose.windows_load import LoadError, classify_code, known_win32_codes
from dlltracer.knowledge import read_table

HEADERS = Path("/usr/x86_64-w64-mingw32/include")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (126, LoadError.NOT_FOUND), (0xC0000135, LoadError.NOT_FOUND), (-1073741515, LoadError.NOT_FOUND),
        (0x8007007E, LoadError.NOT_FOUND), (0xC06D007E, LoadError.NOT_FOUND), (127, LoadError.SYMBOL_NOT_FOUND),
        (0xC0000139, LoadError.SYMBOL_NOT_FOUND), (182, LoadError.SYMBOL_NOT_FOUND),
        (0xC0000138, LoadError.SYMBOL_NOT_FOUND), (193, LoadError.BAD_IMAGE), (0xC000007B, LoadError.BAD_IMAGE),
        (1114, LoadError.INITIALISATION_FAILED), (0xC0000142, LoadError.INITIALISATION_FAILED),
        (206, LoadError.PATH_TOO_LONG), (5, LoadError.ACCESS_DENIED), (577, LoadError.BLOCKED),
        (1260, LoadError.BLOCKED), (4551, LoadError.BLOCKED), (0x800711C7, LoadError.BLOCKED),
        (-2147020345, LoadError.BLOCKED), (998, LoadError.INVALID_ACCESS), (1455, LoadError.OUT_OF_MEMORY),
        (8, LoadError.OUT_OF_MEMORY), (14001, LoadError.SIDE_BY_SIDE), (0xC0000005, LoadError.CRASH),
        (0xC000001D, LoadError.CRASH), (0xC0000409, LoadError.CRASH),
        (0, LoadError.UNKNOWN), (99999, LoadError.UNKNOWN),
    ],
)  # fmt: skip
def test_codes(code: int, error: LoadError) -> None:
    found = classify_code(code)
    assert found.error is error
    assert bool(found.name) is (error is not LoadError.UNKNOWN)
    assert found.meaning


def test_a_status_that_means_the_same_has_the_same_meaning_and_its_own_name() -> None:
    status, win32 = classify_code(0xC0000135), classify_code(126)
    assert (status.name, win32.name) == ("STATUS_DLL_NOT_FOUND", "ERROR_MOD_NOT_FOUND")
    assert (status.meaning, status.causes) == (win32.meaning, win32.causes)


def test_every_entry_can_be_read() -> None:
    rows = [row["code"] for row in read_table("codes")["win32"]] + [
        int(row["code"], 16) for row in read_table("codes")["status"]
    ]
    assert len(set(rows)) == len(rows) > 45
    assert all(classify_code(code).error is not LoadError.UNKNOWN for code in rows)
    assert set(known_win32_codes()) == {code for code in rows if code < 2**16}


# Not in the headers of mingw-w64: numbers of the newer SDK, exceptions of delayimp.h and of the C++ runtime.
NOT_IN_HEADERS = {
    225, 226, 362, 388, 395, 426, 577, 740, 786, 4551, 4556, 4557, 0xC06D007E, 0xC06D007F, 0xE06D7363, 0x20474343,
    0xC000042C, 0xC0000906, 0xC0000907, 0xC0E90002,
}  # fmt: skip


def test_names_and_numbers_are_those_of_the_headers() -> None:
    if not HEADERS.is_dir():
        pytest.skip("no headers of mingw-w64 on this machine")
    text = "".join((HEADERS / name).read_text(errors="replace") for name in ("winerror.h", "ntstatus.h"))
    numbers = {m[1]: int(m[2], 0) for m in re.finditer(r"#define (\w+) +\D*?\(?(0x[0-9A-Fa-f]+|\d+)\b", text)}
    checked = 0
    for code in (*known_win32_codes(), *(int(row["code"], 16) for row in read_table("codes")["status"])):
        name = classify_code(code).name
        if code not in NOT_IN_HEADERS:
            assert numbers[name] == code, name
            checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
         DlError(DlProblem.MISSING, "libGL.so.1", system_error="No such file or directory", loader="glibc")),
        ("python3: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: "
         "No such file or directory",
         DlError(DlProblem.MISSING, "libpython3.11.so.1.0", system_error="No such file or directory", loader="glibc")),
        ("Could not load library libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8: cannot open shared object "
         "file: No such file or directory",
         DlError(DlProblem.MISSING, "libcudnn_ops_infer.so.8", system_error="No such file or directory",
                 loader="glibc")),
        ("OSError('/a b/x.so: cannot open shared object file: Permission denied')",
         DlError(DlProblem.NO_PERMISSION, "/a b/x.so", system_error="Permission denied", loader="glibc")),
        ("/l/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by /p/x.so)",
         DlError(DlProblem.MISSING_VERSION, "/l/libstdc++.so.6", None, "GLIBCXX_3.4.30", "/p/x.so", loader="glibc")),
        ("/p/x.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs",
         DlError(DlProblem.MISSING_SYMBOL, "/p/x.so", "_ZN3c105ErrorC2ENS_14SourceLocationESs", loader="glibc")),
        ("/l/libtiff.so.6: undefined symbol: jpeg12_write_raw_data, version LIBJPEG_8.0",
         DlError(DlProblem.MISSING_SYMBOL, "/l/libtiff.so.6", "jpeg12_write_raw_data", "LIBJPEG_8.0", loader="glibc")),
        ("python3: symbol lookup error: /p/x.so: undefined symbol: extra",
         DlError(DlProblem.MISSING_SYMBOL, "/p/x.so", "extra", loader="glibc")),
        ("python3: relocation error: /p/x.so: symbol f version V_2 not defined in file liba.so.1 with link time "
         "reference",
         DlError(DlProblem.MISSING_SYMBOL, "/p/x.so", "f", "V_2", provider="liba.so.1", loader="glibc")),
        ("/p/x.so: symbol f, version V_2 not defined in file liba.so.1 with link time reference",
         DlError(DlProblem.MISSING_SYMBOL, "/p/x.so", "f", "V_2", provider="liba.so.1", loader="glibc")),
        ("/p/x.so: wrong ELF class: ELFCLASS32", DlError(DlProblem.WRONG_CLASS, "/p/x.so", system_error="ELFCLASS32",
                                                        loader="glibc")),
        ("/usr/lib/libc.so: invalid ELF header", DlError(DlProblem.NOT_AN_IMAGE, "/usr/lib/libc.so", loader="glibc")),
        ("/p/x.so: file too short", DlError(DlProblem.TRUNCATED, "/p/x.so", loader="glibc")),
        ("/p/libgomp.so.1: cannot allocate memory in static TLS block",
         DlError(DlProblem.STATIC_TLS, "/p/libgomp.so.1", loader="glibc")),
        ("x.so: cannot enable executable stack as shared object requires: Invalid argument",
         DlError(DlProblem.EXECUTABLE_STACK, "x.so", system_error="Invalid argument", loader="glibc")),
        ("x.so: failed to map segment from shared object: Operation not permitted",
         DlError(DlProblem.NOT_MAPPED, "x.so", system_error="Operation not permitted", loader="glibc")),
        ("x.so: failed to map segment from shared object", DlError(DlProblem.NOT_MAPPED, "x.so", loader="glibc")),
        ("x.so: ELF load command address/offset not properly aligned",
         DlError(DlProblem.ALIGNMENT, "x.so", loader="glibc")),
        ("x.so: ELF load command alignment not page-aligned", DlError(DlProblem.ALIGNMENT, "x.so", loader="glibc")),
        ("x.so: CPU ISA level is lower than required", DlError(DlProblem.CPU_TOO_OLD, "x.so", loader="glibc")),
        ("Error loading shared library libGL.so.1: No such file or directory (needed by /p/cv2.so)",
         DlError(DlProblem.MISSING, "libGL.so.1", required_by="/p/cv2.so", system_error="No such file or directory",
                 loader="musl")),
        ("Error loading shared library /p/x.so: Exec format error",
         DlError(DlProblem.NOT_AN_IMAGE, "/p/x.so", system_error="Exec format error", loader="musl")),
        ("Error loading shared library /p/x.so: Operation not permitted",
         DlError(DlProblem.NO_PERMISSION, "/p/x.so", system_error="Operation not permitted", loader="musl")),
        ("Error relocating /p/x.so: __cxa_thread_atexit_impl: symbol not found",
         DlError(DlProblem.MISSING_SYMBOL, "/p/x.so", "__cxa_thread_atexit_impl", loader="musl")),
        ("Error relocating /p/x.so: v: initial-exec TLS resolves to dynamic definition in /p/y.so",
         DlError(DlProblem.STATIC_TLS, "/p/x.so", "v", loader="musl")),
        ("Error relocating /p/x.so: unsupported relocation type 1026",
         DlError(DlProblem.DAMAGED, "/p/x.so", loader="musl")),
        ("Error relocating /p/x.so: RELRO protection failed: Out of memory",
         DlError(DlProblem.NOT_MAPPED, "/p/x.so", system_error="Out of memory", loader="musl")),
        ("Symbol not found: PyInit_x", DlError(DlProblem.MISSING_SYMBOL, symbol="PyInit_x", loader="musl")),
        ("libfoo.so.1: Kann die Shared-Object-Datei nicht \u00f6ffnen: Datei oder Verzeichnis nicht gefunden",
         DlError(DlProblem.UNDECIDED, "libfoo.so.1")),
        ("No module named 'x'", DlError(DlProblem.UNDECIDED)),
        ("", DlError(DlProblem.UNDECIDED)),
    ],
)  # fmt: skip
def test_words_of_the_loaders(text: str, wanted: DlError) -> None:
    assert classify_dlerror(text) == wanted
    traceback = f'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import x\n{text}\n'
    assert classify_dlerror(traceback) == wanted


def test_translated_words() -> None:
    translations = {"Kann nicht": "cannot open shared object file", "Nicht gefunden": "No such file or directory"}
    found = classify_dlerror("libfoo.so.1: Kann nicht: Nicht gefunden", translations)
    assert (found.problem, found.library) == (DlProblem.MISSING, "libfoo.so.1")


def test_the_table_of_words() -> None:
    assert len(set(loader_messages())) == len(loader_messages()) > 40
    for rows in read_table("loader_words").values():
        assert all(DlProblem(row["problem"]) for row in rows)


@given(st.text(max_size=300) | st.text("Error loading shared library: (needed by)so\n", max_size=300))
def test_any_text_is_taken(text: str) -> None:
    assert isinstance(classify_dlerror(text), DlError)


@given(st.integers())
def test_any_number_is_taken(code: int) -> None:
    assert classify_code(code).meaning


@pytest.mark.skipif(sys.platform != "linux", reason="dlopen of Linux")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
class TestThisLoader:
    """What the loader of this machine says of files made to fail."""

    def test_a_missing_need(self, tmp_path: Path) -> None:
        build(tmp_path, "gone", "int gone(void) { return 1; }", "-Wl,-soname,libgone-for-good.so.7")
        path = build(tmp_path, "x", "int gone(void); int f(void) { return gone(); }", str(tmp_path / "gone.so"))
        found = refusal(path)
        assert found.problem is DlProblem.MISSING
        assert found.library == "libgone-for-good.so.7"

    def test_an_undefined_symbol(self, tmp_path: Path) -> None:
        found = refusal(build(tmp_path, "x", "extern int absent_here; int *f(void) { return &absent_here; }"))
        assert (found.problem, found.symbol) == (DlProblem.MISSING_SYMBOL, "absent_here")
        assert found.library == str(tmp_path / "x.so")

    def test_a_missing_version(self, tmp_path: Path) -> None:
        script = tmp_path / "map"
        options = [f"-Wl,--version-script={script}", "-Wl,-soname,libv.so"]
        script.write_text("V_2 { global: f; };\n")
        provider = build(tmp_path, "libv", "int f(void) { return 2; }", *options)
        path = build(tmp_path, "x", "int f(void); int g(void) { return f(); }", str(provider), "-Wl,-rpath,$ORIGIN")
        script.write_text("V_1 { global: f; };\n")
        build(tmp_path, "libv", "int f(void) { return 1; }", *options)
        found = refusal(path)
        if found.loader == "musl":
            pytest.skip("musl has no symbol versions")
        assert (found.problem, found.version) == (DlProblem.MISSING_VERSION, "V_2")
        assert (found.library, found.required_by) == (str(provider), str(path))

    @pytest.mark.parametrize(
        ("content", "problems"),
        [
            (b"", {DlProblem.TRUNCATED, DlProblem.NOT_AN_IMAGE}),
            (b"version https://git-lfs.github.com/spec/v1\n" * 4, {DlProblem.NOT_AN_IMAGE}),
            (b"\x7fELF\x01\x01\x01" + bytes(200), {DlProblem.WRONG_CLASS, DlProblem.NOT_AN_IMAGE}),
        ],
        ids=["empty", "pointer of Git LFS", "32 bits"],
    )
    def test_files_that_are_none(self, tmp_path: Path, content: bytes, problems: set[DlProblem]) -> None:
        path = tmp_path / "x.so"
        path.write_bytes(content)
        found = refusal(path)
        assert found.problem in problems
        assert found.library == str(path)

    def test_static_tls(self, tmp_path: Path) -> None:
        model = '__attribute__((tls_model("initial-exec")))'
        source = f"__thread char room[1 << 20] {model}; char *f(void) {{ return room; }}"
        found = refusal(build(tmp_path, "x", source))
        assert found.problem in (DlProblem.STATIC_TLS, DlProblem.OUT_OF_MEMORY)


def build(folder: Path, name: str, source: str, *options: str) -> Path:
    path = folder / f"{name}.so"
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-xnone", "-o", str(path), *options]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def refusal(path: Path) -> DlError:
    with pytest.raises(OSError, match=r".") as caught:
        ctypes.CDLL(str(path))
    return classify_dlerror(str(caught.value))
