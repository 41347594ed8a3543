"""The snapshot of macOS, with a dyld made by hand: no Mac is here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dlltracer.capture.snapshots import NOTE, SnapshotBackend, make_dyld_reader
from dlltracer.errors import BackendUnavailable
from dlltracer.model.events import LoadEvent, UnloadEvent


class Dyld:
    """Three functions of dyld over a list of images, base and path."""

    def __init__(self, *images: tuple[int, bytes]) -> None:
        self.images = list(images)
        self.on_name: Any = None

        def count() -> int:
            return len(self.images)

        def name(number: int) -> bytes | None:
            if self.on_name is not None:
                change, self.on_name = self.on_name, None
                change()
            return self.images[number][1] if number < len(self.images) else None

        def header(number: int) -> int | None:
            return self.images[number][0] if number < len(self.images) else None

        self._dyld_image_count, self._dyld_get_image_name, self._dyld_get_image_header = count, name, header


SYSTEM, MODULE = (0x1000, b"/usr/lib/libSystem.B.dylib"), (0x2000, b"/v/ext\xff.so")


def test_what_came_and_went_is_recorded() -> None:
    dyld = Dyld(SYSTEM, (0x3000, b"/v/old.dylib"))
    session = SnapshotBackend(lambda: make_dyld_reader(dyld), NOTE).start()
    assert session.progress() == 2
    dyld.images = [SYSTEM, MODULE]
    recording = session.stop()()
    assert [(type(event), event.path, event.base) for event in recording.events] == [
        (UnloadEvent, "/v/old.dylib", 0x3000), (LoadEvent, "/v/ext\udcff.so", 0x2000),
    ]  # fmt: skip
    assert NOTE in recording.notes


def test_images_that_move_while_they_are_read_are_read_again() -> None:
    dyld = Dyld(SYSTEM, MODULE)
    dyld.on_name = lambda: dyld.images.pop(0)
    found = make_dyld_reader(dyld)(False)
    assert found.images == {(0x2000, "/v/ext\udcff.so"): 0}


def test_a_system_without_dyld_gets_the_reason() -> None:
    with pytest.raises(BackendUnavailable, match="no dyld that can be asked"):
        make_dyld_reader(SimpleNamespace())
    assert not SnapshotBackend(lambda: make_dyld_reader(SimpleNamespace())).availability().ok
