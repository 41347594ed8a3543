"""Contracts: names, the map of a process, the bundled tables."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.binary.loader_data import HEADER_SIZE, decode_api_set_map, decode_api_set_size
from dlltracer.errors import BinaryFormatError
from dlltracer.knowledge import contract_stems, explain_not_system, system_names, usual_known_dlls
from dlltracer.model.loader_context import ApiSetHost, WindowsContext
from dlltracer.model.pe import MACHINE_AMD64
from dlltracer.resolve.winsearch import ContractState, contract_stem, is_contract, look_up_contract

MAP = {
    "api-ms-win-core-file-l1-2": ApiSetHost("kernelbase.dll", (("kernelbase.dll", "kernel32.dll"),)),
    "api-ms-win-crt-heap-l1-1": ApiSetHost("ucrtbase.dll"),
    "ext-ms-win-gone-l1-1": ApiSetHost(""),
}


def build_map(hosts: dict[str, ApiSetHost], version: int = 6) -> bytes:
    """An API set map of version 6, as Windows has it in memory."""
    entries_at = HEADER_SIZE
    values_at = entries_at + 24 * len(hosts)
    value_count = sum(1 + len(host.exceptions) for host in hosts.values())
    text_at = values_at + 20 * value_count
    entries, values, text = b"", b"", b""

    def put(word: str) -> tuple[int, int]:
        nonlocal text
        start = text_at + len(text)
        text += word.encode("utf-16-le")
        return start, 2 * len(word)

    for stem, host in hosts.items():
        start, hashed = put(stem)
        _, rest = put("-0")
        count = 1 + len(host.exceptions)
        entries += struct.pack("<6I", 1, start, hashed + rest, hashed, values_at + len(values), count)
        values += struct.pack("<5I", 0, 0, 0, *put(host.host))
        for importer, other in host.exceptions:
            values += struct.pack("<5I", 0, *put(importer), *put(other))
    body = entries + values + text
    return struct.pack("<7I", version, HEADER_SIZE + len(body), 0, len(hosts), entries_at, 0, 31) + body


def test_the_map_is_read() -> None:
    data = build_map(MAP)
    assert decode_api_set_size(data[:HEADER_SIZE]) == len(data)
    assert decode_api_set_map(data) == MAP


@pytest.mark.parametrize("version", [2, 4, 7])
def test_another_version_is_refused(version: int) -> None:
    with pytest.raises(BinaryFormatError, match=f"version {version}"):
        decode_api_set_map(build_map(MAP, version))


@given(st.data())
def test_a_damaged_map_gives_one_error_or_a_map(data: st.DataObject) -> None:
    raw = bytearray(build_map(MAP))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        found = decode_api_set_map(cut)
    except BinaryFormatError:
        return
    assert all(isinstance(host, ApiSetHost) for host in found.values())


def test_a_map_cut_short_is_refused() -> None:
    data = build_map(MAP)
    for length in range(len(data) - 1):
        with pytest.raises(BinaryFormatError):
            decode_api_set_map(data[:length])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("api-ms-win-core-file-l1-2-4.dll", "api-ms-win-core-file-l1-2"),
        ("API-MS-Win-Core-File-L1-2-0", "api-ms-win-core-file-l1-2"),
        ("ext-ms-win-ntuser-window-l1-1-0.DLL", "ext-ms-win-ntuser-window-l1-1"),
    ],
)
def test_the_last_number_does_not_count(name: str, stem: str) -> None:
    assert is_contract(name)
    assert contract_stem(name) == stem


@pytest.mark.parametrize(
    "name", ["api-client.dll", "apis.dll", "ext-l1-1-0.dll", "my-api-ms-win-x-l1-1-0.dll", "api-x-l1-1-0.exe"]
)
def test_other_names_are_no_contracts(name: str) -> None:
    assert not is_contract(name)


def test_what_the_map_says() -> None:
    context = WindowsContext(MACHINE_AMD64, "C:\\Python", api_sets=MAP)
    mapped = look_up_contract("api-ms-win-core-file-l1-2-1.dll", "a.dll", context)
    assert (mapped.state, mapped.host) == (ContractState.MAPPED, "kernelbase.dll")
    assert look_up_contract("api-ms-win-core-file-l1-2-1.dll", "KernelBase.dll", context).host == "kernel32.dll"
    assert look_up_contract("ext-ms-win-gone-l1-1-0.dll", "a.dll", context).state is ContractState.ABSENT
    assert look_up_contract("api-ms-win-new-l1-1-0.dll", "a.dll", context).state is ContractState.ABSENT


def test_without_a_map_the_table_says() -> None:
    context = WindowsContext(MACHINE_AMD64, "C:\\Python")
    known = look_up_contract("api-ms-win-crt-runtime-l1-1-0.dll", "a.dll", context)
    assert known.state is ContractState.KNOWN
    assert look_up_contract("api-ms-win-new-l1-1-0.dll", "a.dll", context).state is ContractState.UNKNOWN


def test_the_tables() -> None:
    assert {
        "kernel32.dll",
        "ntdll.dll",
        "ws2_32.dll",
        "winspool.drv",
        "ucrtbase.dll",
        "webservices.dll",
    } <= system_names()
    assert {"kernel32.dll", "advapi32.dll", "ole32.dll", "msvcrt.dll"} <= usual_known_dlls()
    assert "api-ms-win-crt-heap-l1-1" in contract_stems()
    for names in (system_names(), usual_known_dlls(), contract_stems()):
        assert all(name == name.lower().strip() for name in names)
    assert not any(is_contract(name) for name in system_names())


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("vcruntime140.dll", "Visual C++"),
        ("vcruntime140_1.dll", "Visual C++"),
        ("vcruntime140d.dll", "Visual C++"),
        ("msvcp140.dll", "Visual C++"),
        ("msvcp140_atomic_wait.dll", "Visual C++"),
        ("concrt140.dll", "Visual C++"),
        ("msvcr100.dll", "Visual C++"),
        ("mfc140u.dll", "MFC"),
        ("vcomp140.dll", "OpenMP"),
        ("libomp140.x86_64.dll", "OpenMP"),
        ("ucrtbased.dll", "debug"),
        ("mfplat.dll", "Media Foundation"),
        ("mf.dll", "Media Foundation"),
        ("mfreadwrite.dll", "Media Foundation"),
        ("python311.dll", "Python"),
        ("d3dx9_43.dll", "DirectX"),
        ("nvcuda.dll", "NVIDIA"),
    ],
)
def test_what_people_lack_is_not_taken_for_the_systems(name: str, word: str) -> None:
    assert word in (explain_not_system(name) or "")
    assert name not in system_names()


@pytest.mark.parametrize("name", ["msvcp_win.dll", "msvcrt.dll", "ucrtbase.dll", "mfc42.dll", "d3dcompiler_47.dll"])
def test_exceptions_are_the_systems(name: str) -> None:
    assert explain_not_system(name) is None
    assert name in system_names()


def test_no_table_contradicts_another() -> None:
    assert [name for name in system_names() | usual_known_dlls() if explain_not_system(name)] == []
