"""What the simulator's scenarios have delivered, read back from their JSON."""

from __future__ import annotations

from typing import Any

IMAGE = "2cb15d1d-5fc1-11d2-abe1-00a0c911f518"
SYSTEM_CONFIG = "01853a65-418f-4f36-aefc-dc0f1d2fd235"
LOAD, UNLOAD, DC_START, DC_END = 10, 2, 3, 4
NO_ID = 0xFFFFFFFF

Result = dict[str, Any]


class Stream:
    """The events of the ``importing`` scenario, by the module that was being imported."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.events: list[Result] = result["events"]
        self.pid: int = result["pid"]

    def images(self, opcode: int) -> list[Result]:
        """This process' own."""
        return [event for event in self.events if is_image(event) and self._own(event) and event["opcode"] == opcode]

    def during(self, module: str) -> list[tuple[str, str]]:
        """Loads and unloads of this process between the marker of that module and the next one."""
        found: list[tuple[str, str]] = []
        at = ""
        for event in self.events:
            at = event.get("text", at)
            if at == module and self.is_change(event):
                found.append(("load" if event["opcode"] == LOAD else "unload", file_name(event)))
        return found

    def is_change(self, event: Result) -> bool:
        """A load or an unload of this process."""
        return is_image(event) and self._own(event) and event["opcode"] in (LOAD, UNLOAD)

    def _own(self, event: Result) -> bool:
        return bool(event["owner"] == self.pid)


def is_image(event: Result) -> bool:
    return event["provider"] == IMAGE and "path" in event


def file_name(event: Result) -> str:
    return str(event["path"]).rpartition("\\")[2].lower()
