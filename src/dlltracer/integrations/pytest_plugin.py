"""The plugin of pytest: `--dlltracer`, and the fixture `dlltrace`.

pytest imports this at every start in an environment that has dlltracer: nothing else is imported until the option is
given or the fixture used. Hooks are wrapped in the old way, which every pytest knows.
"""

from __future__ import annotations

import sys

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .pytest_verdicts import LiveTrace

BACKEND_INI = "dlltracer_backend"
SUMMARY_INI = "dlltracer_summary"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, and the setting for the name of the mechanism."""
    group = parser.getgroup("dlltracer", "native imports that fail")
    group.addoption("--dlltracer", action="store_true", help="Trace the tests, and say why a native import failed.")
    group.addoption(
        "--dlltracer-summary", metavar="FILE",
        help="Append the verdicts to FILE as Markdown, for the summary of a CI job; none: nowhere. With --dlltracer "
        "the default is what GITHUB_STEP_SUMMARY says.",
    )  # fmt: skip
    parser.addini(SUMMARY_INI, "The same as --dlltracer-summary.", default="")
    parser.addini(BACKEND_INI, "The mechanism of --dlltracer and of the fixture dlltrace (default: auto).", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the hooks if the option is set. Raises `pytest.UsageError` for an unknown mechanism."""
    if config.getoption("dlltracer") or config.getoption("dlltracer_summary"):
        from .pytest_verdicts import JobSummary, Verdicts

        summary = JobSummary(summary_file_of(config))
        config.pluginmanager.register(summary, "dlltracer-summary")
        config.pluginmanager.register(Verdicts(backend_of(config), summary), "dlltracer-verdicts")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """If the option is set, explain a conftest.py that cannot be imported: it ends pytest at its start."""
    known = early_config.known_args_namespace
    if not known.dlltracer and not known.dlltracer_summary:
        yield
        return
    from .pytest_verdicts import JobSummary, explain_conftest

    yield from explain_conftest(lambda: backend_of(early_config), JobSummary(summary_file_of(early_config)))


@pytest.fixture
def dlltrace(request: pytest.FixtureRequest) -> Iterator[LiveTrace]:
    """The images that the test loads, and fails to load: a sequence of events that grows as the test goes on.

    `with dlltrace:` begins anew and ends with the block. Also has `recording`, `loads` and `failures`.
    """
    from .pytest_verdicts import LiveTrace

    trace = LiveTrace(backend_of(request.config))
    trace.start()
    try:
        yield trace
    finally:
        trace.stop()


def summary_file_of(config: pytest.Config) -> str | None:
    """Return the file that the verdicts are appended to: of the option, of the setting, else of the CI job."""
    from ..host.machine import summary_of_job

    named: str = config.known_args_namespace.dlltracer_summary or config.getini(SUMMARY_INI)
    if named == "none":
        return None
    return str(config.invocation_params.dir / named) if named else summary_of_job()


def backend_of(config: pytest.Config) -> str:
    """Return the mechanism from pytest's settings, else from dlltracer's. Raises `pytest.UsageError`."""
    from ..capture.choose import check_backend_name
    from ..errors import DlltracerError

    try:
        name: str = config.getini(BACKEND_INI) or _configured_backend(str(config.rootpath)) or "auto"
        check_backend_name(name)
    except DlltracerError as error:
        raise pytest.UsageError(f"dlltracer: {error}") from error
    return name


def _configured_backend(folder: str) -> str | None:
    """Return `backend` of `[tool.dlltracer.pytest]`, else of `[tool.dlltracer]`. Raises `ConfigurationError`."""
    from ..host.configfile import PYTEST, UntrustedSettings, find_config

    try:
        config = find_config(folder)
    except UntrustedSettings as error:
        print(f"dlltracer: {error}", file=sys.stderr)
        return None
    if config is None:
        return None
    own = config.section(PYTEST)
    own.refuse_unknown(("backend",))
    return own.text("backend") or config.text("backend")
