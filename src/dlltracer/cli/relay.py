"""The signals that dlltracer gets while the program runs."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from types import FrameType


class Relay:
    """Our signals while the program runs.

    What the terminal sends to the whole group (SIGINT, SIGQUIT) is the program's to answer, and reaches it without us.
    What somebody sends to us alone (SIGTERM ...) is passed on. A signal that we were started to ignore stays ignored.
    """

    _LEAVE = ("SIGINT", "SIGQUIT", "SIGBREAK")
    _PASS_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Relay:
        # Handlers, not SIG_IGN: the program would inherit that.
        for name in self._LEAVE:
            self._take(name, lambda number, frame: None)
        if sys.platform != "win32":
            for name in self._PASS_ON:
                self._take(name, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def connect(self, child: subprocess.Popen[bytes]) -> None:
        """The program has started: it gets what came before."""
        self._child = child
        for number in self._early:
            child.send_signal(number)

    def _take(self, name: str, handler: object) -> None:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            self._before[number] = signal.signal(number, handler)  # type: ignore[arg-type]

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)
