"""IPython and Jupyter: the magic `%dlltrace`, and the verdict after the traceback of a cell.

Imported by `%load_ext dlltracer` alone, so IPython is there.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from types import CodeType

from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.core.magic import no_var_expand
from IPython.display import display

from ..errors import DlltracerError, UnknownBackend
from ..model.finding import Diagnosis
from ..model.recording import Recording
from ..model.screen import escape
from ..trace import Trace

_NAME = "dlltrace"


def load(shell: InteractiveShell) -> None:
    """Add the magic, and explain cells that end with an exception."""
    extension = _Extension(shell)

    def dlltrace(line: str, cell: str | None = None) -> None:
        """Run code and show which native images it loaded, for which import, and what failed to load.

        %dlltrace [--backend NAME] [--failed-only] STATEMENT, or %%dlltrace [OPTIONS] above a cell.
        """
        __tracebackhide__ = True
        extension.trace_code(line, cell)

    shell.register_magic_function(no_var_expand(dlltrace), magic_kind="line_cell", magic_name=_NAME)
    shell.events.register("post_run_cell", extension.after_cell)


def unload(shell: InteractiveShell) -> None:
    """Remove the magic and the hook for exceptions."""
    for callback in list(shell.events.callbacks["post_run_cell"]):
        if isinstance(getattr(callback, "__self__", None), _Extension):
            shell.events.unregister("post_run_cell", callback)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop(_NAME, None)


class _Extension:
    """The state of one shell: the exception that was traced last, and the one that was explained last."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._traced: tuple[BaseException, Recording] | None = None
        self._explained: BaseException | None = None

    def trace_code(self, line: str, cell: str | None) -> None:
        """Run the code under a trace, and show the tree. An exception of the code is passed on."""
        __tracebackhide__ = True
        options = _MagicOptions(line)
        if cell is not None and options.rest:
            raise UsageError(f"the code stands in the lines below %%{_NAME}, not behind it: {options.rest}")
        source = options.rest if cell is None else cell
        parts = _compile(self._shell, source, first_line=1 if cell is None else 2)
        trace = _start(options.backend)
        try:
            for part in parts:
                exec(part, self._shell.user_global_ns, self._shell.user_ns)  # noqa: S102 - this is the cell
        except BaseException as error:
            self._finish(trace, options.failed_only, error)
            raise
        self._finish(trace, options.failed_only, None)

    def _finish(self, trace: Trace | None, failed_only: bool, error: BaseException | None) -> None:
        """End the trace and show it. Raises nothing, so that the cell's own exception is not lost."""
        if trace is None:
            return
        try:
            trace.close()
            recording = trace.recording
            if recording is None:
                return
            self._traced = (error, recording) if error is not None else None
            from ..report.render_notebook import render_tree_html
            from ..report.render_text import render_text

            _show(render_text(recording, failed_only=failed_only).plain, render_tree_html(recording, failed_only))
        except Exception as problem:  # noqa: BLE001 - see above
            _print(f"the trace could not be shown: {type(problem).__name__}: {problem}")

    def after_cell(self, result: ExecutionResult | None) -> None:
        """Show the verdict on the exception that ended a cell, once, if a loader took part in it."""
        error = result.error_in_exec if result is not None else None
        traced, self._traced = self._traced, None
        if error is None or error is self._explained:
            return
        try:
            from ..api.explain import explain_if_of_a_loader, import_error_in

            cause = import_error_in(error)
            recording = traced[1] if traced is not None and traced[0] is error else None
            diagnosis = explain_if_of_a_loader(cause, recording) if cause is not None else None
            if diagnosis is None:
                return
            self._explained = error
            diagnosis = _with_cells(diagnosis, self._shell)
            from ..host.screen import screen_here
            from ..report.render_notebook import render_verdict_html
            from ..report.render_short import render_short_verdict

            _show(render_short_verdict(diagnosis, screen_here()).plain, render_verdict_html(diagnosis))
        except Exception as problem:  # noqa: BLE001 - the traceback is out; nothing more is owed
            _print(f"no verdict: {type(problem).__name__}: {problem}")


class _MagicOptions:
    """The options at the start of a magic's line, and the `rest` of the line. Raises `UsageError`."""

    def __init__(self, line: str) -> None:
        self.backend = "auto"
        self.failed_only = False
        rest = line.strip()
        while rest.startswith("--"):
            word, _, rest = rest.partition(" ")
            name, equals, value = word.partition("=")
            if name == "--failed-only" and not equals:
                self.failed_only = True
            elif name == "--backend":
                if not equals:
                    value, _, rest = rest.strip().partition(" ")
                if not value:
                    raise UsageError("--backend wants the name of a mechanism")
                self.backend = value
            else:
                raise UsageError(f"there is no option {name}: %{_NAME} takes --backend NAME and --failed-only")
            rest = rest.strip()
        self.rest = rest


def _compile(shell: InteractiveShell, source: str, *, first_line: int) -> list[CodeType]:
    """Compile the code as IPython does: magics work, the last value is shown, tracebacks have lines.

    `first_line` is the line of the cell that the source begins with. Raises `SyntaxError`.
    """
    text = "\n" * (first_line - 1) + shell.transform_cell(source)
    running = getattr(shell.displayhook, "exec_result", None)
    number = getattr(running, "execution_count", None) or shell.execution_count
    name = shell.compile.cache(text, number, raw_code=text)
    module = shell.transform_ast(shell.compile.ast_parse(text, name))
    body = list(module.body)
    last = [body.pop()] if body and isinstance(body[-1], ast.Expr) else []
    parts = [shell.compile(ast.Module(body, []), name, "exec")] if body else []
    return parts + [shell.compile(ast.Interactive(last), name, "single") for _ in last]


def _with_cells(diagnosis: Diagnosis, shell: InteractiveShell) -> Diagnosis:
    """Return the verdict with lines of cells named as in IPython's tracebacks."""
    names = {}
    name_of = getattr(shell.compile, "format_code_name", lambda file: None)  # not in the first releases of IPython 8
    for frame in diagnosis.error.frames if diagnosis.error is not None else ():
        known = name_of(frame.file)
        if known is not None:
            names[f"{frame.file}:{frame.line}"] = f"{' '.join(known)}, line {frame.line}"

    def rename(step: str) -> str:
        known = (old for old in names if f"{step}:".startswith(f"{old}:"))
        return next((f"{names[old]}{step[len(old) :]}" for old in known), step)

    findings = tuple(replace(one, chain=tuple(map(rename, one.chain))) for one in diagnosis.findings)
    return replace(diagnosis, findings=findings)


def _start(backend: str) -> Trace | None:
    """Return a running trace. If none can be started, print what would help, and return `None`."""
    try:
        trace = Trace(backend=backend)
        trace.start()
    except UnknownBackend as error:
        raise UsageError(str(error)) from None
    except (DlltracerError, OSError) as error:
        _print(f"not traced: {error}")
        return None
    return trace


def _print(text: str) -> None:
    print(f"dlltracer: {escape(text)}", file=sys.stderr)


def _show(plain: str, html: str) -> None:
    display({"text/plain": plain.rstrip("\n"), "text/html": html}, raw=True)
