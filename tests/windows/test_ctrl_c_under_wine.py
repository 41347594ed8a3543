"""Ctrl-C in a console that dlltracer shares with its program: it is for the program, and the report follows."""

from __future__ import annotations

import json
from pathlib import Path

from windows.lab import PYTHONS, Lab

DRIVER = """
import ctypes, json, os, signal, subprocess, sys, time
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
folder = sys.argv[1]
# A console of our own: the event goes to all that share it (GenerateConsoleCtrlEvent, MS Learn).
kernel32.FreeConsole()
assert kernel32.AllocConsole()
signal.signal(signal.SIGINT, lambda *_: None)
with open(os.path.join(folder, "sleepy.py"), "w") as file:
    file.write('''
import os, time
try:
    import bz2
    os.mkdir("ready")
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    import ssl
    raise SystemExit(5)
''')
answers = []
for words in json.loads(sys.argv[2]):
    command = [sys.executable, "-m", "dlltracer", *words]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        ready, until = os.path.join(folder, "ready"), time.monotonic() + 60
        while not os.path.exists(ready) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.rmdir(ready)
        sent = kernel32.GenerateConsoleCtrlEvent(0, 0)
        try:
            text = process.communicate(timeout=50)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            process.kill()
            text = "no end"
        answers.append([sent, process.returncode, text])
print(json.dumps(answers))
"""


def test_ctrl_c_is_the_programs_and_the_report_follows(lab: Lab, simulated: dict[str, str], tmp_path: Path) -> None:
    kinds = (["debugger"], ["etw"], ["debugger", "--follow"])
    commands = [["run", "--backend", *words, "sleepy.py"] for words in kinds]
    done = lab.run(max(PYTHONS), ["-c", DRIVER, tmp_path, json.dumps(commands)], env=simulated, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for words, (sent, status, text) in zip(commands, json.loads(done.stdout), strict=True):
        assert (sent, status) == (1, 5), (words, text)
        assert text.startswith("interrupted"), text
        assert "_bz2.pyd" in text, "what came before it"
        assert "_ssl.pyd" in text, "what came after it: the debugger stays"


def test_ctrl_c_ends_what_why_tries(lab: Lab, paths: dict[str, str], tmp_path: Path) -> None:
    commands = [["why", "--no-try", "sleepy"]]
    done = lab.run(max(PYTHONS), ["-c", DRIVER, tmp_path, json.dumps(commands)], env=paths, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    ((sent, status, text),) = json.loads(done.stdout)
    assert sent == 1 and "Traceback" not in text, text
    assert status not in (0, None) and text != "no end", text
