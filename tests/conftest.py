from __future__ import annotations

import os

# The commands write annotations where this says so; tests that want them set it.
os.environ.pop("GITHUB_ACTIONS", None)
