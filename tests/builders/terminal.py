"""A pseudo-terminal that a Python program runs on, and what would be seen on its screen."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator

COLUMNS, ROWS = 100, 30


def run_on_terminal(code: str, *arguments: str, **more: str) -> tuple[str, str]:
    """Run the code with stderr on a terminal; what it wrote there, raw, and its stdout. Raises unless it ends well."""
    child, terminal = start_on_terminal([sys.executable, "-c", textwrap.dedent(code), *arguments], **more)
    assert child.stdin is not None
    child.stdin.close()
    output = "".join(parts(terminal))
    child.stdin = None
    stdout, _ = child.communicate(timeout=60)
    assert child.returncode == 0, output
    return output, stdout.decode()


def run_command_on_terminal(command: list[str], **more: str) -> str:
    """Run it with stdout and stderr on one terminal and no input; return what it wrote there, raw."""
    child, terminal = start_on_terminal(command, stdout_too=True, **more)
    assert child.stdin is not None
    child.stdin.close()
    output = "".join(parts(terminal))
    child.wait(60)
    return output


def start_on_terminal(
    command: list[str], *, stdout_too: bool = False, **more: str
) -> tuple[subprocess.Popen[bytes], int]:
    """Start it with stderr on a terminal, and pipes for the other two; the descriptor of our side of the terminal."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "GITHUB_ACTIONS")
    environment = {**{k: v for k, v in os.environ.items() if k not in unwanted}, "TERM": "xterm", **more}
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=theirs if stdout_too else subprocess.PIPE, stderr=theirs,
        env=environment,
    )  # fmt: skip
    os.close(theirs)
    return child, ours


def parts(terminal: int) -> Iterator[str]:
    """What is written on the terminal, as it comes, to its end; then our side is closed."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while part := os.read(terminal, 4096):
            yield decoder.decode(part)
    except OSError:  # the other side is closed: so Linux says it
        return
    finally:
        os.close(terminal)


def screen(output: str) -> list[str]:
    """The lines that remain on a terminal: enough of ECMA-48 for what rich writes; raises on anything else."""
    rows, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b", output):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif piece.startswith("\x1b"):
            count = int(re.sub(r"\D", "", piece) or 1)
            kind = piece[-1]
            if kind == "A":
                row = max(0, row - count)
            elif kind == "K":
                rows[row] = "" if piece == "\x1b[2K" else rows[row][:column]
            elif kind not in "mhl":
                raise AssertionError(f"unexpected {piece!r}")
        else:
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in rows]
