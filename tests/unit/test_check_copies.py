"""Which runtimes an environment has twice: by builds, and by the names that decide who wins."""

from __future__ import annotations

import pytest

from dlltracer.check.platform_check import RuntimeCopy, family_of, judge_copies


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("libgomp-a34b3233.so.1.0.0", "libgomp"), ("libgomp.so.1", "libgomp"), ("libiomp5.so", "LLVM's OpenMP"),
        ("libomp.dylib", "LLVM's OpenMP"), ("libiomp5md.dll", "LLVM's OpenMP"), ("libstdc++.so.6", "libstdc++"),
        ("libomp140.x86_64.dll", "LLVM's OpenMP"), ("MSVCP140.dll", "the C++ runtime"),
        ("msvcp140-0123456789abcdef.dll", "the C++ runtime"), ("libompeople.so", None), ("libfoo.so.1", None),
    ],
)  # fmt: skip
def test_families(name: str, family: str | None) -> None:
    assert family_of(name) == family


def copy(package: str, name: str, build: str) -> RuntimeCopy:
    return RuntimeCopy(f"{package}/{name}", name, package, build)


def output(*copies: RuntimeCopy) -> list[tuple[str, str]]:
    return [(problem.severity.value, problem.evidence[0].partition(":")[0]) for problem in judge_copies(copies)]


def test_copies() -> None:
    own = [copy("a", "libgomp-00000001.so.1", "1"), copy("b", "libgomp-00000002.so.1", "2")]
    assert output(*own) == [("note", "each has a name of its own, and serves its own package")]
    assert output(copy("a", "libgomp.so.1", "1"), copy("b", "libgomp.so.1", "2")) == [("note", "all have one name")]
    assert output(copy("a", "libgomp.so.1", "1"), copy("b", "libgomp.so.1", "1")) == [], "one build"
    assert output(copy("a", "libgomp.so.1", "1"), copy("a", "libgomp-2.so.1", "2")) == [], "one package"
    ((severity, words),) = output(copy("a", "libomp-00000001.so", "1"), copy("b", "libiomp5.so", "2"))
    assert severity == "warning" and words.startswith("a process that gets two of them ends with")
    assert output(copy("a", "libiomp5.so", "1"), copy("b", "libiomp5.so", "2")) == [("note", "all have one name")]
