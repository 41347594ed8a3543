"""Traces which native images an import loads, and which failed to load.

``with dlltracer.Trace(out=sys.stdout): import module_to_trace`` is the whole interface of a script;
``dlltracer run`` is the same from the command line.

Importing this package imports nothing else: it is used inside broken environments, and whatever it imported
would be missing from the trace. The names below are loaded on first use (PEP 562).

pytest rewrites the assertions of packages that bring a plugin. It warns when it comes too late for that, as it does in
a traced program. There are none for it here: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .errors import BackendUnavailable, DlltracerError, TracePermissionError, TraceStartError, UnknownBackend
    from .model.events import DebugEvent, LoadEvent, LoadFailedEvent, UnloadEvent
    from .model.recording import Recording
    from .trace import Trace

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "DebugEvent",
    "DlltracerError",
    "LoadEvent",
    "LoadFailedEvent",
    "Recording",
    "Trace",
    "TracePermissionError",
    "TraceStartError",
    "UnknownBackend",
    "UnloadEvent",
    "__version__",
    "check_many",
    "explain",
    "install",
]

_FUNCTIONS = {"check_many": ".check.many", "explain": ".api.explain", "install": ".integrations.excepthook"}


def __getattr__(name: str) -> object:
    """Load a public name on first use; `AttributeError` for any other."""
    if name == "Trace":
        from .trace import Trace

        return Trace
    if name in ("LoadEvent", "LoadFailedEvent", "UnloadEvent", "DebugEvent"):
        from .model import events

        return getattr(events, name)
    if name == "Recording":
        from .model.recording import Recording

        return Recording
    if name in _FUNCTIONS:
        from importlib import import_module

        return getattr(import_module(_FUNCTIONS[name], __name__), name)
    if name in __all__:
        from . import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magic `%dlltrace` and verdicts behind tracebacks: `%load_ext dlltracer` calls this function."""
    from .integrations.ipython import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove what `load_ipython_extension` registered: `%unload_ext dlltracer` calls this function."""
    from .integrations.ipython import unload

    unload(shell)
