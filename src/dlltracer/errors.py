"""The exceptions of dlltracer: few, typed, each keeps its data and says what to do next.

"Not found" is never one of them: a missing library is an event, not an error of ours.
"""

from __future__ import annotations

_NAMES_SHOWN = 12

ERROR_ACCESS_DENIED = 5
"""The Windows code (winerror.h) that `PermissionError.winerror` carries."""
_EACCES = 13
"""errno.EACCES, on Windows as on Linux."""


class DlltracerError(Exception):
    """Base of every error that dlltracer raises on purpose."""


class UnknownBackend(DlltracerError, ValueError):
    """A backend name that does not exist.

    Attributes: `name` (what was asked for), `known` (the names that exist).
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown backend {name!r}: choose one of {', '.join(known)}")
        self.name = name
        self.known = known


class BackendUnavailable(DlltracerError, OSError):
    """A backend that exists and cannot work here.

    Attributes: `backend`, `reason` (why not), `remedy` (what to do instead; may be empty).
    """

    def __init__(self, backend: str, reason: str, remedy: str = "") -> None:
        text = f"backend {backend!r} is not available here: {reason}"
        super().__init__(f"{text}. {remedy}" if remedy else text)
        self.backend = backend
        self.reason = reason
        self.remedy = remedy


class TraceStartError(DlltracerError, OSError):
    """Windows refused to start the trace.

    Attributes: `winerror` (the Windows code, on every platform), `call` (the function that returned it), and on Windows
    `errno` as Python gives it for that code.
    """

    def __init__(self, call: str, code: int, remedy: str) -> None:
        super().__init__(f"{call} failed with Windows error {code}: {remedy}")
        self.call = call
        # On Windows the fourth argument decides the errno, elsewhere it is ignored ("OSError", Python documentation).
        self.errno = OSError(None, "", None, code).errno
        self.strerror = self.args[0]
        self.winerror = code

    def __str__(self) -> str:
        return str(self.strerror)


class TracePermissionError(DlltracerError, PermissionError):
    """The trace needs a privilege that this process does not have; `winerror` is 5 and `errno` 13 (EACCES), as for any
    refusal of Windows."""

    def __init__(self, call: str, remedy: str) -> None:
        super().__init__(f"{call} was refused (Windows error {ERROR_ACCESS_DENIED}, access denied): {remedy}")
        self.call = call
        self.errno = _EACCES
        self.strerror = self.args[0]
        self.winerror = ERROR_ACCESS_DENIED

    def __str__(self) -> str:
        return str(self.strerror)


class ConfigurationError(DlltracerError, ValueError):
    """A file with settings that cannot be used.

    Attributes: `path` (the file), `key` (the setting, as in "run.backend"; empty for the file as a whole), `problem`.
    """

    def __init__(self, path: str, key: str, problem: str) -> None:
        super().__init__(f"{path}: {key}: {problem}" if key else f"{path}: {problem}")
        self.path = path
        self.key = key
        self.problem = problem


class BinaryFormatError(DlltracerError, ValueError):
    """Bytes that are not the image they claim to be, or not one at all.

    Attributes: `offset` (in bytes, where the first thing wrong was found), `problem`.
    """

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"{problem} (at offset {offset:#x})")
        self.offset = offset
        self.problem = problem


class NotATraceFile(DlltracerError, ValueError):
    """A file that is not the recorded trace it was taken for, or one of which nothing can be read.

    Attributes: `path`, `problem`.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path!r} is no trace file: {problem}")
        self.path = path
        self.problem = problem


class NoSuchProcess(DlltracerError, LookupError):
    """A recorded trace has nothing of the process that was asked for.

    Attributes: `wanted` (in words), `names` (of the programs that it has something of, each once).
    """

    def __init__(self, wanted: str, names: tuple[str, ...]) -> None:
        shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        super().__init__(
            f"the trace has no {wanted}; it has {shown}{more}" if names else f"the trace has no {wanted}, nor any other"
        )
        self.wanted = wanted
        self.names = names


class Interrupted(BaseException):
    """Ctrl-C, as click lets it pass: for a KeyboardInterrupt it would write a line of its own."""
