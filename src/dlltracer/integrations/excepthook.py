"""The verdict behind the traceback of any program that ends with a failed import."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def install() -> None:
    """Print a verdict on stderr when this program ends with an import or a load that failed.

    The traceback comes first, by the hook that was there (`sys.excepthook`). Nothing is traced and nothing is imported
    until then, so the program runs as without; the verdict rests on the exception and on the files. Calling it twice
    does what calling it once does.
    """
    if isinstance(sys.excepthook, _Hook):
        return
    sys.excepthook = _Hook()


class _Hook:
    """The hook, in front of the one that was there."""

    def __init__(self) -> None:
        self._before = sys.excepthook

    def __call__(self, kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        self._before(kind, error, where)
        if isinstance(error, (ImportError, OSError)) or isinstance(error.__cause__ or error.__context__, ImportError):
            try:
                self._explain(error)
            except Exception as problem:  # noqa: BLE001 - the traceback is out; a hook that raises would hide it
                print(f"dlltracer: no verdict: {type(problem).__name__}: {problem}", file=sys.stderr)

    def _explain(self, error: BaseException) -> None:
        from ..api.explain import explain_if_of_a_loader

        diagnosis = explain_if_of_a_loader(error)
        if diagnosis is None or sys.stderr is None:
            return
        from ..report.render_verdict import render_plain_verdict

        text = render_plain_verdict(diagnosis)
        encoding = sys.stderr.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", file=sys.stderr)
