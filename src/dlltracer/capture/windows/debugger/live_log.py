"""What the helper of a trace writes, decoded while the trace runs. Pure but for the paths of requests."""

from __future__ import annotations

from ....model.events import ImageChange
from ...requests import Watch
from ..image_events import ImageDecoder, RecordContext
from ..image_records import RawRecord
from ..live_images import LiveImages
from ..system import query_dos_devices, with_final_path
from .process_log import ProcessLog, as_seen_here, replay_lines


class LiveLog:
    """The log of process `pid`; `wall` and `clock` as of `ProcessLog.events`.

    Attributes: `log`, with all records; `events`, all until now; `fresh`, those that nobody took yet; `undecodable`,
    how many lines and records could not be decoded.
    """

    def __init__(self, watch: Watch, pid: int, wall: float, clock: int) -> None:
        devices = query_dos_devices()
        self._pid = pid
        self._decoder = ImageDecoder(RecordContext(pid, devices, None, 1_000_000_000, wall, clock))
        self._images = LiveImages(self._decoder, lambda record: record.ticks, watch, with_final_path)
        self.log = ProcessLog(devices, on_record=self._note_record)
        self._has_begun = False
        self._damaged = 0
        self.events: list[ImageChange] = []
        self.fresh: list[ImageChange] = []

    @property
    def undecodable(self) -> int:
        return self._damaged + self._images.undecodable

    def feed(self, text: bytes, before: int) -> None:
        """Take in whole lines. The first `before` bytes of them tell what was loaded before the trace began."""
        self._damaged += replay_lines(text, before, self._pid, self.log)

    def decode(self, now: int, *, is_end: bool = False) -> None:
        """Decode what has come, as `LiveImages.take` does."""
        fresh = [as_seen_here(event) for event in self._images.take(now, is_end=is_end)]
        self.events += fresh
        self.fresh += fresh

    def _note_record(self, record: RawRecord) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._decoder.decode(self.log.before, ())
        self._images.add([record])
