"""Names of images, compared as their system compares them."""

from __future__ import annotations

from ...model.events import ImageEvent
from ..drawing import file_name, is_windows_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.saved import SavedTrace


def is_windows(saved: SavedTrace) -> bool:
    """Whether the trace is of a Windows, by the word of the machine, else by the look of its paths."""
    if saved.host is not None:
        return saved.host.system == "windows"
    return any(isinstance(event, ImageEvent) and is_windows_path(event.path) for event in saved.recording.events)


class Names:
    """Names to numbers; the first number of a name counts. On Windows, upper and lower case are the same."""

    def __init__(self, windows: bool) -> None:
        self._windows = windows
        self._numbers: dict[str, int] = {}

    def fold(self, name: str) -> str:
        """The last part of a name or path, as it is compared."""
        name = file_name(name)
        return name.lower() if self._windows else name

    def add(self, number: int, *names: str) -> None:
        """Make the image known under the last part of each name."""
        for name in names:
            self._numbers.setdefault(self.fold(name), number)

    def find(self, name: str) -> int | None:
        """The number of the image of that name."""
        return self._numbers.get(self.fold(name))
