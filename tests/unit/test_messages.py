"""The Windows code behind the words of an exception, in the language of this machine or another one."""

from __future__ import annotations

import ctypes
import gettext
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.loader_errors import loader_messages
from dlltracer.diagnose.windows_load import MessageCode, MessageSource, bundled_texts, find_code, known_win32_codes
from dlltracer.host.failure import LOCALES, read_loader_translations, read_system_texts

LANGUAGES = {"en", "de", "fr", "es", "pt-BR", "zh-CN", "ja", "pl", "ru"}


@pytest.mark.parametrize(("code", "language"), bundled_texts())
def test_words_seen_in_reports(code: int, language: str) -> None:
    words = bundled_texts()[code, language].replace("%1", "x.pyd")
    wanted = MessageCode(code, MessageSource.BUNDLED, language)
    assert find_code(f"ImportError: DLL load failed while importing x: {words}") == wanted
    assert find_code(f"DLL load failed: {words.rstrip('.')}\n") == wanted


def test_the_languages_of_the_table() -> None:
    assert {language for _, language in bundled_texts()} == LANGUAGES
    for code in (126, 127, 193):
        assert {language for number, language in bundled_texts() if number == code} == LANGUAGES


def test_windows_quotes_either_way() -> None:
    found = find_code("OSError: %1 n\u2019est pas une application Win32 valide")
    assert found == MessageCode(193, MessageSource.BUNDLED, "fr")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("OSError: [WinError 1114] Words nobody knows. Error loading \"c10.dll\"", 1114),
        ("DLL load failed with error code -1073741795 while importing x", -1073741795),
        ("libGL.so.1: cannot open shared object file: No such file or directory", None),
        ("", None),
    ],
)  # fmt: skip
def test_numbers_and_nothing(text: str, code: int | None) -> None:
    assert find_code(text) == (MessageCode(code, MessageSource.NUMBER) if code else None)


def test_the_words_of_ctypes() -> None:
    text = "FileNotFoundError: Could not find module 'x.dll' (or one of its dependencies). Try using the full path."
    assert find_code(text) == MessageCode(126, MessageSource.CPYTHON)


def test_the_words_of_the_system_come_before_the_bundled_ones() -> None:
    english = bundled_texts()[126, "en"]
    system = {126: "Modulen kunde inte hittas.", 1150: english}
    assert find_code("DLL load failed: Modulen kunde inte hittas.", system) == MessageCode(126, MessageSource.SYSTEM)
    assert find_code(f"DLL load failed: {english}", system) == MessageCode(1150, MessageSource.SYSTEM)


def test_words_that_two_codes_share_decide_nothing() -> None:
    assert find_code("the same words", {8: "The same words.", 14: "The same words."}) is None


def test_the_longest_words_count() -> None:
    assert find_code("it was not found here", {2: "not found", 3: "not found here"}) == MessageCode(
        3, MessageSource.SYSTEM
    )


@given(st.text(max_size=200), st.dictionaries(st.integers(1, 99), st.text(max_size=20), max_size=5))
def test_any_text_is_taken(text: str, system: dict[int, str]) -> None:
    found = find_code(text, system)
    if found is not None and found.source is MessageSource.SYSTEM:
        assert found.code in system
    elif found is not None and found.source is MessageSource.NUMBER:
        assert str(found.code) in text
    elif found is not None:
        assert found.code in known_win32_codes()


def test_this_system() -> None:
    texts = read_system_texts(known_win32_codes())
    if sys.platform != "win32":
        assert texts == {}
        return
    assert set(texts) >= {5, 126, 127, 193, 1114}
    assert texts[126] == ctypes.FormatError(126).strip()  # type: ignore[attr-defined,unused-ignore]
    found = find_code(f"DLL load failed while importing x: {texts[126]}", texts)
    assert found == MessageCode(126, MessageSource.SYSTEM)


def test_the_translations_of_glibc() -> None:
    if not Path(LOCALES, "de/LC_MESSAGES/libc.mo").exists():
        pytest.skip("glibc has no German here")
    found = read_loader_translations(loader_messages(), ["de"])
    assert "cannot open shared object file" in found.values()
    german = gettext.translation("libc", LOCALES, ["de"]).gettext("invalid ELF header")
    assert found[german] == "invalid ELF header"
    assert read_loader_translations(loader_messages(), ["no-such-language"]) == {}
