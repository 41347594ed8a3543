"""Where a library comes from: the table is whole, and the sources found are right and in the right order."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.package_tools import package_tool
from dlltracer.diagnose.providers import NO_DLL_SITES, find_providers
from dlltracer.knowledge import is_of_driver, read_table
from dlltracer.model.environment import ProviderKind
from dlltracer.model.failure import System

ROWS = read_table("providers")["providers"]
KINDS = {kind.value for kind in ProviderKind}
MAKERS = {
    "aka.ms", "learn.microsoft.com", "support.microsoft.com", "www.microsoft.com", "developer.nvidia.com",
    "www.nvidia.com", "www.python.org", "www.postgresql.org", "dev.mysql.com", "mariadb.com", "www.oracle.com",
    "www.ibm.com", "ffmpeg.org", "www.msys2.org", "imagemagick.org", "www.videolan.org", "ghostscript.com",
    "adoptium.net", "mpv.io", "docs.nvidia.com", "rocm.docs.amd.com", "www.amd.com",
}  # fmt: skip

MANAGED = {
    "apt": r"[a-z0-9][a-z0-9+.-]+",  # Debian Policy Manual, 5.6.7
    "dnf": r"[A-Za-z0-9][A-Za-z0-9+._-]*",  # Fedora Packaging Guidelines, Naming
    "apk": r"[a-z0-9][a-z0-9+._-]*",  # apk-package(5)
    "conda": r"[a-z0-9_][a-z0-9_.-]*(?:=[0-9.]+)?",  # conda's package specification
    "pip": r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:==[0-9.]+)?",  # PyPA specifications, Names
}
"""Kinds whose packages a manager installs by name, and the names that it takes."""
SINGLE_FILES = (
    "dll-files", "dllme", "dlldump", "fix4dll", "wikidll", "dlldownloader", "dlldownload", "softpedia", "filehippo",
    "cnet.com", "windll", "dll.website", "opendll",
)  # fmt: skip


def names(library: str, system: System, distribution: str | None = None) -> list[str]:
    return [f"{p.kind.value} {p.name}" for p in find_providers(library, system, distribution)]


@pytest.mark.parametrize(
    ("library", "first"),
    [
        ("MSVCP140.dll", "installer Microsoft Visual C++ Redistributable (x64)"),
        (r"C:\Windows\System32\vcruntime140_1.DLL", "installer Microsoft Visual C++ Redistributable (x64)"),
        ("mfc140u.dll", "installer Microsoft Visual C++ Redistributable (x64)"),
        ("msvcr100.dll", "installer Visual C++ 2010 Redistributable Package"),
        ("VCRUNTIME140D.dll", "rebuild a Release build"),
        ("ucrtbased.dll", "rebuild a Release build"),
        ("msvcr120d.dll", "rebuild a Release build"),
        ("python311_d.dll", "rebuild a Release build"),
        ("libomp140.x86_64.dll", "pip torch"),
        ("MFPlat.DLL", "windows feature Media Feature Pack"),
        ("api-ms-win-crt-runtime-l1-1-0.dll", "windows update Universal C Runtime (KB2999226)"),
        ("api-ms-win-core-path-l1-1-0.dll", "newer windows Windows 8 or later"),
        ("api-ms-win-core-synch-l1-2-0.dll", "newer windows a newer Windows"),
        ("icuuc.dll", "newer windows Windows 10, version 1703, or later"),
        ("cublasLt64_12.dll", "pip nvidia-cublas-cu12"),
        ("cudnn_ops_infer64_8.dll", "pip nvidia-cudnn-cu12"),
        ("nvJitLink_120_0.dll", "pip nvidia-nvjitlink-cu12"),
        ("cudart64_101.dll", "installer CUDA Toolkit of that version"),
        ("nvcuda.dll", "driver NVIDIA display driver"),
        ("nvEncodeAPI.dll", "driver NVIDIA display driver"),
        ("amdhip64_6.dll", "driver AMD Software, the driver of the graphics card"),
        ("ze_loader.dll", "driver the driver of an Intel graphics card"),
        ("mkl_intel_thread.2.dll", "pip mkl"),
        ("tbb12.dll", "pip tbb"),
        ("libiomp5md.dll", "pip intel-openmp"),
        ("ICLIT09B.dll", "installer IBM Informix Client SDK"),
        ("oci.dll", "installer Oracle Instant Client"),
        ("pywintypes311.dll", "pip pywin32"),
        ("libstdc++-6.dll", "rebuild a build that has it"),
        ("avcodec-60.dll", "installer a shared build of FFmpeg, of the version in the name"),
    ],
)
def test_windows(library: str, first: str) -> None:
    assert names(library, System.WINDOWS)[0] == first


@pytest.mark.parametrize(
    ("library", "distribution", "first"),
    [
        ("libGL.so.1", "debian", "apt libgl1"),
        ("libGL.so.1", "linuxmint ubuntu debian", "apt libgl1"),
        ("libGL.so.1", "fedora", "dnf libglvnd-glx"),
        ("libGL.so.1", "alpine", "apk mesa-gl"),
        ("libgthread-2.0.so.0", "ubuntu", "apt libglib2.0-0"),
        ("libxcb-cursor.so.0", "debian", "apt libxcb-cursor0"),
        ("libpython3.12.so.1.0", "ubuntu", "apt libpython3.12"),
        ("libicuuc.so.72", "debian", "apt libicu72"),
        ("libavcodec.so.58", "debian", "apt libavcodec58"),
        ("libffi.so.6", None, "rebuild a build for this system"),
        ("libssl.so.1.0.0", None, "rebuild a build for this system"),
        ("libcrypto.so.3", "alpine", "apk libcrypto3"),
        ("libcuda.so.1", "ubuntu", "driver NVIDIA display driver"),
        ("libva-x11.so.2", "fedora", "dnf libva"),
        ("libmlx5.so.1", "debian", "apt ibverbs-providers"),
        ("libamdhip64.so.5", "debian", "apt libamdhip64-5"),
        ("libamdhip64.so.6", None, "apt libamdhip64-6"),
        ("libcudart.so.11.0", None, "pip nvidia-cuda-runtime-cu11"),
        ("libcublas.so.12", None, "pip nvidia-cublas-cu12"),
        ("libcublas.so.13", None, "pip nvidia-cublas"),
        ("libcudnn_ops_infer.so.8", None, "pip nvidia-cudnn-cu12"),
        ("libnvJitLink.so.12", None, "pip nvidia-nvjitlink-cu12"),
        ("/usr/lib/libodbc.so.2", "debian", "apt unixodbc"),
        ("libclntsh.so.21.1", None, "installer Oracle Instant Client"),
        ("libc.musl-x86_64.so.1", "debian", "rebuild a build for glibc"),
        ("ld-linux-x86-64.so.2", "alpine", "rebuild a build for this C library"),
    ],
)
def test_linux(library: str, distribution: str | None, first: str) -> None:
    assert names(library, System.LINUX, distribution)[0] == first


@pytest.mark.parametrize(("name", "system", "expected"), [
    ("NVCUDA.dll", "windows", True), ("amdhip64_6.dll", "windows", True), ("amdhip64_x.dll", "windows", False),
    ("nvcuda.dll", "linux", False), ("libcuda.so.1", "linux", True), ("libnvidia-ml.so.1", "linux", True),
    ("libva-wayland.so.2", "linux", True), ("libcuda.so.1", "windows", False), ("libcudart.so.12", "linux", False),
    ("cudart64_12.dll", "windows", False), ("", "windows", False), ("[", "linux", False),
])  # fmt: skip
def test_what_a_driver_brings(name: str, system: str, expected: bool) -> None:
    """`why` and `check` have it from one table."""
    assert is_of_driver(name, system) is expected


def test_only_the_packages_of_the_distribution() -> None:
    kinds = {ProviderKind.APT, ProviderKind.DNF, ProviderKind.APK}
    known = {p.kind for p in find_providers("libGL.so.1", System.LINUX, "rocky rhel")} & kinds
    unknown = {p.kind for p in find_providers("libGL.so.1", System.LINUX)} & kinds
    other = {p.kind for p in find_providers("libGL.so.1", System.LINUX, "arch")} & kinds
    assert (known, unknown, other) == ({ProviderKind.DNF}, kinds, set())
    assert package_tool("void") is package_tool(None) is package_tool("") is None


def test_an_alternative_for_servers_and_the_old_name() -> None:
    first, second, *_ = find_providers("libGL.so.1", System.LINUX, "debian", "/site/cv2/cv2.abi3.so")
    assert "libgl1-mesa-glx" in first.note
    others = find_providers("libGL.so.1", System.LINUX, "debian", "/site/PySide6/Qt/lib/libQt6Gui.so.6")
    assert second not in others, "it is no replacement for anything but cv2"
    assert (second.name, first.command) == ("opencv-python-headless", ("apt-get", "install", "libgl1"))


@pytest.mark.parametrize(
    ("library", "system"),
    [
        ("libgomp-a34b3233.so.1.0.0", System.LINUX),
        ("msvcp140-a4c2229bdc2a2a630acdc095b4d86008.dll", System.WINDOWS),
        ("libGL.so.1", System.WINDOWS), ("libGL.so.1", System.OTHER), ("msvcp140.dll", System.LINUX),
        ("MSVCP140.dll", System.LINUX),
        ("libgl.so.1", System.LINUX), ("kernel32.dll", System.WINDOWS), ("", System.LINUX), ("/", System.LINUX),
        ("libicuuc.so.72; rm -rf x", System.LINUX), ("libavcodec.so.", System.LINUX),
    ],
)  # fmt: skip
def test_names_of_nobody(library: str, system: System) -> None:
    assert find_providers(library, system) == ()


def test_the_table_is_whole() -> None:
    """Each row is found by its names, and what it says can be typed."""
    keys = {"system", "names", "note", "other", "checked", *KINDS, *(f"{kind}_note" for kind in ("apt", "dnf", "apk"))}
    seen: set[tuple[str, str]] = set()
    for row in ROWS:
        assert set(row) <= keys, row
        for name in row["names"]:
            assert (row["system"], name.lower()) not in seen, name
            seen.add((row["system"], name.lower()))
            example = name.replace("#", "12").replace("*", "x").replace("?", "a")
            providers = find_providers(example, System(row["system"]))
            assert providers, name
            assert not any("{" in f"{p.name}{p.command}{p.note}" for p in providers)
            assert all(p.command for p in providers if p.kind.value in ("pip", "conda", "apt", "dnf", "apk"))
    assert len(seen) > 400


def test_no_row_hides_another() -> None:
    """The first row that has a name counts: the wildcards of none reach the names of a later one."""
    for row in ROWS:
        for name in row["names"]:
            example = name.replace("#", "12").replace("*", "x").replace("?", "a")
            found = {one.name for one in find_providers(example, System(row["system"]), None, "/site/cv2/cv2.so")}
            listed = [name for kind in MANAGED for name in row.get(kind, ())]
            own = {spec.partition("=")[0].replace("{1}", "12") for spec in listed}
            assert found == own | {entry["name"].replace("{1}", "12") for entry in row.get("other", ())}, name


def test_names_of_packages_are_what_their_manager_takes() -> None:
    """Nothing that a shell would take for its own, and nothing twice."""
    for row in ROWS:
        for kind, rule in MANAGED.items():
            specs = row.get(kind, [])
            assert len(specs) == len(set(specs)), row
            for spec in specs:
                assert re.fullmatch(rule, spec.replace("{1}", "12")), (kind, spec)
        for entry in row.get("other", ()):
            assert entry["kind"] in KINDS
            if entry["kind"] in MANAGED:
                assert re.fullmatch(MANAGED[entry["kind"]], entry["name"]), entry
                assert re.match(rf"{re.escape(entry['name'])}\b", entry["command"][-1]), entry
            assert not [word for word in entry.get("command", ()) if " " in word], entry


def test_what_was_checked_is_there() -> None:
    for row in ROWS:
        kinds = {*row, *(entry["kind"] for entry in row.get("other", ()))}
        assert set(row.get("checked", ())) <= kinds & {"pip", "conda", "dnf", "apk"}, row
    assert sum("checked" in row for row in ROWS) > 50


def test_a_package_of_cuda_is_of_the_version_in_the_name() -> None:
    """The newest package of conda-forge is of the newest CUDA, which has another number in the names of its files."""
    numbered = re.compile(r"(?:lib)?(?:cudart|cublas(?:lt)?|cufft|nvjitlink|nvrtc)(?:64)?(?:_|\.so\.)\d", re.I)
    for row in ROWS:
        for name in row["names"]:
            for spec in row.get("conda", ()) if numbered.match(name) else ():
                assert "=" in spec, (name, spec)


def test_no_site_of_single_files_is_named() -> None:
    """Users were led to such sites by others (docs/reference/providers.md)."""
    text = str(ROWS).lower()
    assert not [site for site in SINGLE_FILES if site in text]
    assert "http://" not in text


def test_every_source_is_its_makers() -> None:
    for row in ROWS:
        for entry in row.get("other", ()):
            assert entry["kind"] in KINDS
            if "url" in entry:
                host = re.fullmatch(r"https://([^/]+)/.*|https://([^/]+)", entry["url"])
                assert host and (host[1] or host[2]) in MAKERS, entry["url"]
            if entry["kind"] == "installer":
                assert "url" in entry, entry


def test_only_digits_get_into_a_command() -> None:
    """A file name is a stranger's text: what "{1}" stands for is typed into a shell."""
    rows = [row for row in ROWS if "{1}" in str(row)]
    assert len(rows) > 5
    for row in rows:
        assert all(name.count("#") == 1 and "*" not in name and "?" not in name for name in row["names"]), row


def test_a_name_of_a_file_gets_into_no_command_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"system": "linux", "names": ["lib*.so"], "apt": ["lib{1}"], "pip": ["py{1}"], "other": [
        {"kind": "pip", "name": "x", "command": ["python", "-m", "pip", "install", "{1}"]}
    ]}  # fmt: skip
    monkeypatch.setattr("dlltracer.diagnose.providers.read_table", lambda _: {"providers": [row]})
    assert [p.command[-1] for p in find_providers("libfoo.so", System.LINUX)] == ["libfoo", "pyfoo", "foo"]
    for name in ("$(x)", "a b", ";x", "--help;", "a\nb", "`x`"):
        assert "install" not in str([p.command for p in find_providers(f"lib{name}.so", System.LINUX)]), name


def test_the_advice() -> None:
    assert "no source" in NO_DLL_SITES


@given(st.text(max_size=60), st.sampled_from(System), st.none() | st.text(max_size=20))
def test_any_name_is_taken(library: str, system: System, distribution: str | None) -> None:
    assert isinstance(find_providers(library, system, distribution), tuple)
