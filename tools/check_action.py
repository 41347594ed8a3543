"""What `action.yml` runs: `dlltracer check` with the inputs of the action, which come as variables of the environment.

No shell meets the inputs. Patterns in the targets are expanded by `dlltracer check`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MOST_SUMMARY = 900_000
"""Characters. GitHub refuses a summary of a step above 1 MiB."""


def main() -> int:
    """Check, write text, annotations and SARIF, and return the exit status of the check."""
    options = ["--fail-on", os.environ.get("FAIL_ON") or "error", "--jobs", os.environ.get("JOBS") or "1"]
    for word in lines_of("IGNORE"):
        options += ["--ignore", word]
    if baseline := os.environ.get("BASELINE"):
        options += ["--baseline", baseline]
    targets = lines_of("TARGETS")
    if not targets:
        print("::error title=dlltracer check::no target is named")
        return 2
    done = check(*options, "--", *targets)
    print(done.stdout, end="", flush=True)
    print(done.stderr, end="", file=sys.stderr, flush=True)
    append("GITHUB_STEP_SUMMARY", f"```text\n{done.stdout[:MOST_SUMMARY].replace('```', '` ` `')}\n```\n")
    append("GITHUB_OUTPUT", f"status={done.returncode}\n")
    if done.returncode in (1, 3):
        print(check(*options, "--format", "github", "--", *targets).stdout, end="", flush=True)
    sarif = os.environ.get("SARIF")
    if sarif and done.returncode != 2:
        check(*options, "--format", "sarif", "--output", sarif, "--", *targets)
    return done.returncode


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dlltracer check` of this Python. Its exit status says what was found."""
    command = [sys.executable, "-m", "dlltracer", "check", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", env=environment, check=False
    )


def lines_of(name: str) -> list[str]:
    """Return the lines of a variable that are not empty."""
    return [line.strip() for line in os.environ.get(name, "").splitlines() if line.strip()]


def append(name: str, text: str) -> None:
    """Append to a file of the runner; nothing happens elsewhere."""
    if path := os.environ.get(name):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
