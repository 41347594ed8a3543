"""Put on PYTHONPATH by the Windows lab: the ETW functions come from the simulator in every Python started there.

Patches on import, so that a process which does not trace looks as it would without us.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TARGET = "dlltracer.capture.windows.bindings"


class SimulatorFinder:
    """Finds the bindings as usual and changes the name of their DLL."""

    def __init__(self, library: str) -> None:
        self._library = library

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != TARGET:
            return None
        spec = PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.ETW_LIBRARY = self._library  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "DLLTRACER_TEST_ETW" in os.environ:
    sys.meta_path.insert(0, SimulatorFinder(os.environ["DLLTRACER_TEST_ETW"]))  # type: ignore[arg-type]
