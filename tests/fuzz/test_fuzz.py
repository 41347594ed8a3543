"""Some seconds of the fuzzer, always from the same seed; the long run is documented in CONTRIBUTING.md."""

from __future__ import annotations

from fuzz.fuzz_readers import run


def test_damaged_files_are_read_or_refused() -> None:
    counts = run(seconds=15, seed=20261129)
    for name, outcomes in counts.items():
        assert outcomes["read"] + outcomes["refused"] > 100, (name, outcomes)
    assert counts["elf"]["refused"] and counts["elf"]["read"] and counts["pe"]["refused"] and counts["pe"]["read"]
