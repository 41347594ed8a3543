"""Runs inside a root: find the loader's two words by comparing three starts of this very Python; print their indexes.

For a portable Python too, which dlltracer does not start: it takes a script and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from dlltracer.capture.linux import compared_starts  # noqa: E402

script, prefix = (os.path.join(HERE, name) for name in ("start_inside.py", "start"))
with open(script, "w") as stream:
    stream.write(compared_starts.CHILD)


def start(*taken: int, **variables: str) -> compared_starts.Start:
    """One start; `taken` are descriptors that it inherits."""
    done = subprocess.run(
        [sys.executable, script, prefix], env={**os.environ, **variables}, pass_fds=taken, stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    return compared_starts.parse_starts(done.stdout)


taken = os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
plain = start()
first, second = start(LD_DEBUG="libs", LD_DEBUG_OUTPUT=prefix), start(taken, LD_DEBUG="files", LD_DEBUG_OUTPUT=prefix)
print(json.dumps(compared_starts.find_compared_words(plain, first, second)))
