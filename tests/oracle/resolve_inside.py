"""Runs inside a root, on any C library: every scenario by the real loader and by the resolver; print both as JSON.

Scenarios are in scenarios.json beside this file; `@` in them stands for its folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from dlltracer.capture.linux.decode import LoaderTextDecoder  # noqa: E402
from dlltracer.host.filesystem import HostFilesystem  # noqa: E402
from dlltracer.host.linux import read_linux_context  # noqa: E402
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe  # noqa: E402
from dlltracer.model.loader_context import GlibcContext  # noqa: E402
from dlltracer.model.tree import BindingState, LoadTree  # noqa: E402
from dlltracer.resolve.linux import resolve_glibc, resolve_musl  # noqa: E402


def place(text: str) -> str:
    return text.replace("@", HERE)


def run_really(scenario: dict[str, Any], environment: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """What the child says, and what its loader says from the load in question on (nothing, with musl)."""
    log = os.path.join(HERE, "log")
    program = [scenario.get("program") or os.path.realpath("/proc/self/exe"), os.path.join(HERE, "resolve_child.py")]
    top = place(scenario["top"])
    done = subprocess.run(
        [*program, top, *map(place, scenario.get("first", ()))],
        env={**environment, "LD_DEBUG": "libs,files", "LD_DEBUG_OUTPUT": log, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=place(scenario.get("folder", "@")), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = b""
    for name in os.listdir(HERE):
        if name.startswith("log."):
            with open(os.path.join(HERE, name), "rb") as stream:
                text = stream.read()
            os.unlink(os.path.join(HERE, name))
    begin = text.find(b"file=%b [0];  dynamically loaded by" % os.fsencode(top))
    output: dict[str, Any] = json.loads(done.stdout)
    return output, text[text.rfind(b"\n", 0, begin) + 1 :] if begin >= 0 else b""


def shown(probes: tuple[Probe, ...] | None, folder: str) -> list[tuple[str, str]]:
    """Path and rule of the places in folders that exist: glibc forgets the others, sooner or later."""
    found = [(os.path.join(folder, probe.path), probe) for probe in probes or ()]
    return [(probe.path, probe.phase.name) for path, probe in found if os.path.isdir(os.path.dirname(path))]


def read_log(text: bytes, folder: str) -> list[Any]:
    decoder = LoaderTextDecoder(None)
    kept: list[Any] = []
    for event, doubt in [*decoder.feed(text), *decoder.finish(True)]:
        if doubt is not None:
            continue
        if isinstance(event, LoadEvent):
            kept.append((event.need, event.path, shown(event.probes, folder)))
        elif isinstance(event, LoadFailedEvent) and event.kind is FailureKind.NOT_FOUND:
            kept.append((event.need, None, shown(event.probes, folder)))
    return kept


def read_tree(tree: LoadTree, folder: str) -> list[Any]:
    """The same of a tree, up to its first failure, where the real loader stops."""
    kept: list[Any] = []
    waiting = dict(tree.images)
    if tree.top in waiting and not any(b.path == tree.top and b.need == tree.top for b in tree.bindings):
        first = tree.bindings[0] if tree.bindings else None
        if first is None or first.path != tree.top:
            waiting.pop(tree.top)
            kept.append((tree.top, tree.top, shown((Probe(tree.top, Phase.DIRECT),), folder)))
    for binding in tree.bindings:
        if binding.state is BindingState.BOUND:
            if binding.path in waiting:
                del waiting[binding.path]
                kept.append((binding.need, binding.path, shown(binding.probes, folder)))
        else:
            kept.append((binding.need, None, shown(binding.probes, folder)))
            break
    return kept


def compare(scenario: dict[str, Any]) -> dict[str, Any]:
    environment = {name: place(value) for name, value in scenario.get("environment", {}).items()}
    folder = place(scenario.get("folder", "@"))
    output, text = run_really(scenario, environment)
    program = scenario.get("program") or os.path.realpath("/proc/self/exe")
    files = HostFilesystem()
    context = read_linux_context(environment=environment, program=program, loaded=output["before"], files=files)
    context = replace(context, current_folder=folder)
    top = place(scenario["top"])
    if isinstance(context, GlibcContext):
        context = replace(context, caller=output["caller"])
        tree = resolve_glibc(top, context, files)
    else:
        tree = resolve_musl(top, context, files)
    failures = [(b.need, b.state.name, b.reason, b.path) for b in tree.missing]
    return {
        "notes": tree.notes,
        "error": output["error"],
        "failures": failures,
        "log": read_log(text, folder),
        "tree": read_tree(tree, folder),
        "new": sorted(set(output["after"]) - set(output["before"])),
        "images": sorted(os.path.realpath(os.path.join(folder, path)) for path in tree.images),
        "bindings": [(b.need, b.requested_by, b.state.name, b.path, b.phase and b.phase.name) for b in tree.bindings],
        "probes": [[(p.path, p.outcome.name, p.reason) for p in b.probes] for b in tree.bindings],
    }


def main() -> None:
    with open(os.path.join(HERE, "scenarios.json")) as stream:
        scenarios = json.load(stream)
    print(json.dumps({scenario["name"]: compare(scenario) for scenario in scenarios}))


main()
