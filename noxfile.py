"""The project's checks, each in an environment of its own: `nox` runs all, `nox -s tests` one."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "imports", "types", "docs", "tests"]

TOOLS = ".ci/tools.txt"


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes."""
    session.install("ruff", "-c", TOOLS)
    session.run("ruff", "check", ".")


@nox.session
def imports(session: nox.Session) -> None:
    """The layers: who may import whom."""
    session.install("-e", ".", "import-linter", "-c", TOOLS)
    session.run("lint-imports", "--no-cache")


@nox.session
@nox.parametrize("platform", ["linux", "win32"])
def types(session: nox.Session, platform: str) -> None:
    """Strict types, as seen on each platform."""
    session.install("-e", ".[test]", "mypy", "-c", TOOLS)
    session.run("mypy", "--platform", platform)


@nox.session
def docs(session: nox.Session) -> None:
    """Links lead somewhere, the site can be built, and the next changelog can be made."""
    session.install("towncrier", "mkdocs-material", "-c", TOOLS)
    session.run("python", "tools/check_links.py")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests; arguments go to pytest: nox -s tests -- -m "not slow"."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)
