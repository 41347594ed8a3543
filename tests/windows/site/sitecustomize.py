"""Put on PYTHONPATH by the Windows lab: what the environment says is changed in every Python started there.

DLLTRACER_TEST_ETW: the ETW functions come from this DLL, the simulator. DLLTRACER_TEST_BACKEND: the mechanism that
`Trace` takes by default. Patches on import, so that a process which does not trace looks as it would without us.
"""

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class ChangingFinder:
    """Finds one module as usual and changes it when it is made."""

    def __init__(self, target: str, change: Callable[[ModuleType], None]) -> None:
        self._target = target
        self._change = change

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self._target:
            return None
        spec = PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def simulate_etw(bindings: ModuleType) -> None:
    bindings.ETW_LIBRARY = os.environ["DLLTRACER_TEST_ETW"]  # type: ignore[attr-defined]


def take_backend(select: ModuleType) -> None:
    select.default_backend_name = lambda: os.environ["DLLTRACER_TEST_BACKEND"]  # type: ignore[attr-defined]


if "DLLTRACER_TEST_ETW" in os.environ:
    sys.meta_path.insert(0, ChangingFinder("dlltracer.capture.windows.etw.bindings", simulate_etw))  # type: ignore[arg-type]
if "DLLTRACER_TEST_BACKEND" in os.environ:
    sys.meta_path.insert(0, ChangingFinder("dlltracer.capture.choose", take_backend))  # type: ignore[arg-type]
