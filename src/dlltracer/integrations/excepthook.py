"""Prints the verdict after the traceback of a program or thread that ends with a failed import."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType


def install() -> None:
    """Print a verdict on stderr when this program, or a thread of it, ends with an import or a load that failed.

    The traceback comes first, by the hooks that were there (`sys.excepthook`, `threading.excepthook`). Nothing is
    traced and nothing but `threading` is imported until then, so the program runs as without; the verdict rests on the
    exception and on the files. Calling it twice does what calling it once does.
    """
    hook: object = sys.excepthook
    if not isinstance(hook, _ExceptHook):
        hook = sys.excepthook = _ExceptHook(_Verdicts())
    try:
        import threading
    except Exception:  # noqa: BLE001 - a threading.py of the program's own, or one that is broken: its own affair
        return
    before = getattr(threading, "excepthook", None)
    if before is not None and not isinstance(before, _ThreadHook):
        threading.excepthook = _ThreadHook(hook.verdicts, before)


class _ExceptHook:
    """The hook of the program. It calls the former hook (`before`) first; `dlltracer run` restores that one."""

    def __init__(self, verdicts: _Verdicts) -> None:
        self.before = sys.excepthook
        self.verdicts = verdicts

    def __call__(self, kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        self.before(kind, error, where)
        self.verdicts.give(error)


class _ThreadHook:
    """The hook of threads, as `_ExceptHook` for the program."""

    def __init__(self, verdicts: _Verdicts, before: Callable[[threading.ExceptHookArgs], object]) -> None:
        self._before = before
        self._verdicts = verdicts

    def __call__(self, arguments: threading.ExceptHookArgs) -> None:
        self._before(arguments)
        if arguments.exc_value is not None:
            self._verdicts.give(arguments.exc_value)


class _Verdicts:
    """Prints verdicts for both hooks, each only once: all threads of a pool may fail for one reason."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, error: BaseException) -> None:
        """Print the verdict, if a loader took part in the failure. Raises nothing: the traceback has been printed."""
        below = error.__cause__ or error.__context__
        if not isinstance(error, (ImportError, OSError)) and not isinstance(below, (ImportError, OSError)):
            return
        try:
            text = self._text(error)
            if text is not None and sys.stderr is not None:
                encoding = sys.stderr.encoding or "ascii"
                print(text.encode(encoding, "backslashreplace").decode(encoding), end="", file=sys.stderr)
        except Exception as problem:  # noqa: BLE001 - see above
            # ascii() leaves nothing that a terminal obeys, and needs no import where imports may be what is broken.
            print(f"dlltracer: no verdict: {type(problem).__name__}: {ascii(str(problem))[1:-1]}", file=sys.stderr)

    def _text(self, error: BaseException) -> str | None:
        from ..api.explain import explain_if_of_a_loader

        diagnosis = explain_if_of_a_loader(error)
        if diagnosis is None:
            return None
        from ..host.screen import screen_here
        from ..report.render_short import render_first_line, render_short_verdict

        screen = screen_here(is_ascii=True)
        text = render_short_verdict(diagnosis, screen).plain
        if text in self._given:
            return f"{render_first_line(diagnosis, screen).plain.rstrip()}: explained above\n"
        self._given.add(text)
        return text
