"""The page of a check: what is wrong comes first, who brings what is there, and no name gets out of its place."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from builders.elf_file import ElfFile
from builders.saved_case import HOSTILE
from dlltracer.check.environment import check_environment
from dlltracer.model.check import CheckReport, PackageContent, Problem, Severity
from dlltracer.report.render_check import render_check_html


class Reader(HTMLParser):
    """The elements of a page, and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "wbr", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data


def problem(code: str, severity: Severity, file: str, title: str = "it is wrong", **more: object) -> Problem:
    return Problem(code=code, severity=severity, file=file, title=title, **more)  # type: ignore[arg-type]


ENVIRONMENT = CheckReport(
    target="/home/me/venv", files=4, notes=("one folder could not be read",),
    problems=(
        problem("missing-image", Severity.ERROR, "site/b/m.so", "libx.so is nowhere", evidence=("seen",), fix="do it"),
        problem("missing-image", Severity.ERROR, "site/b/n.so", "libx.so is nowhere"),
        problem("absolute-runpath", Severity.NOTE, "site/a/m.so"),
    ),
    packages=(
        PackageContent(name="a", version="1", files=("site/a/m.so", "site/a.libs/libomp.so.5")),
        PackageContent(name="b", version="2", files=("site/b/m.so", "site/b/n.so", "site/b/libomp.so.5")),
        PackageContent(name="c", version="3", files=("site/c/m.cpython-312-x86_64-linux-gnu.so",)),
        PackageContent(name="d", version="4", files=("site/d/m.cpython-312-x86_64-linux-gnu.so",)),
    ),
)  # fmt: skip


def test_what_is_wrong_and_who_brings_what() -> None:
    html = render_check_html([ENVIRONMENT])
    text = Reader(html).text
    assert "/home/me/venv: 2 errors" in text.replace("\u200b", "")
    order = ("libx.so is nowhere", "do it", "it is wrong", "Names that several", "Who brings")
    places = [text.index(words) for words in order]
    assert places == sorted(places), "errors come first"
    assert html.count("libx.so is nowhere") == 1, "alike problems of several files are shown once"
    shared = text[text.index("Names that several") : text.index("Who brings")]
    assert "libomp.so.5" in shared and "a, b" in shared and "m.so" not in shared
    brings = text[text.index("Who brings") :]
    assert [brings.index(f"{name} {version}") for name, version in (("b", 2), ("a", 1), ("c", 3))] == sorted(
        brings.index(f"{name} {version}") for name, version in (("b", 2), ("a", 1), ("c", 3))
    )
    assert "one folder could not be read" in text and "missing-image" in text


def test_a_sound_and_a_torn_target() -> None:
    torn = CheckReport(target="x.whl", unreadable="no zip")
    text = Reader(render_check_html([CheckReport(target="good.whl", files=1), torn])).text
    assert text.index("x.whl") < text.index("good.whl") and "nothing wrong" in text and "no zip" in text
    assert "2 targets" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str) -> None:
    report = CheckReport(
        target=name, files=1, notes=(name,), platforms=(name,),
        problems=(problem("missing-image", Severity.ERROR, name, name, evidence=(name,), fix=name, platform=name),),
        packages=(PackageContent(name=name, version=name, files=(name,)),),
    )  # fmt: skip
    html = render_check_html([report])
    html.encode("utf-8")
    page, sober = Reader(html), Reader(render_check_html([ENVIRONMENT]))
    assert set(page.tags) <= set(sober.tags) | {"wbr", "small"} and "script" not in page.tags
    assert not [value for key, value in page.attributes if key.startswith("on") or key in ("href", "src", "style")]
    assert "\x1b" not in html and "\u202e" not in html


def test_a_large_result_gives_a_page_that_a_browser_reads() -> None:
    problems = tuple(problem("missing-image", Severity.ERROR, f"f{n}", f"title {n % 1000}") for n in range(100_000))
    html = render_check_html([CheckReport(target="big", problems=problems)])
    assert len(html) < 6_000_000 and "700 more kinds of problems are not shown" in html


def test_an_environment_says_which_package_brings_what(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    for name in ("one", "two"):
        (site / name).mkdir(parents=True)
        (site / name / "lib_x.so").write_bytes(ElfFile(loadable=True).build())
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}/lib_x.so,,\n{name}/gone.py,,\n")
    report = check_environment(str(site), is_folder=True, use_cache=False)
    found = [(one.name, one.version, len(one.files)) for one in report.packages]
    assert found == [("one", "1.0", 1), ("two", "1.0", 1)]
    assert "lib_x.so" in Reader(render_check_html([report])).text
