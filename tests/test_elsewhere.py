"""Where modules and signals of Unix are absent, as on Windows, and DeepSpeed, as off Linux: import, commands, a run.

In a process of its own the project finds none of them. Libraries have code of their own for each system and keep
theirs; the rest of such a system cannot be tried here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from generalist.machine import lock

ROOT = Path(__file__).resolve().parent.parent
UNIX = ("resource", "fcntl", "termios", "grp", "pwd", "pty")
ABSENT = ("deepspeed", "ninja")
SIGNALS = ("SIGHUP", "SIGCHLD", "SIGPROF", "SIGALRM", "SIGUSR1", "setitimer", "ITIMER_PROF", "pthread_sigmask")

# Signals are left out of the enumeration before anything else is imported.
BEFORE = f"""
import builtins, enum, signal, sys
for name in {ABSENT!r}:
    sys.modules[name] = None
kept = {{name: m.value for name, m in signal.Signals.__members__.items() if name not in {SIGNALS!r}}}
signal.Signals = enum.IntEnum("Signals", kept)
for name in {SIGNALS!r}:
    delattr(signal, name)
whole = builtins.__import__
def find(name, globals=None, *more, **words):
    if name.split(".")[0] in {UNIX!r} and str((globals or {{}}).get("__name__")).startswith("generalist"):
        raise ModuleNotFoundError(name)
    return whole(name, globals, *more, **words)
builtins.__import__ = find
"""


def elsewhere(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", BEFORE + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_package_the_commands_and_a_training_do_without_what_only_unix_has(tmp_path):
    code = f"""
sys.path.insert(0, {str(ROOT)!r})
import generalist
from generalist.cli import main
assert main(["info"]) == 0 and main(["recipe", "demo", "steps"]) == 0
keys = ["steps=4", "baseline_seconds=20"]  # torch's own loader on this system wants SIGCHLD
assert main(["train", {str(ROOT / "tests" / "tiny.py")!r}, *keys, "--out", "run", "--quiet"]) == 0
assert main(["report", "run"]) == 0 and main(["resume-check", "run"]) == 0
assert "deepspeed" not in {{name for name, module in sys.modules.items() if module is not None}}
"""
    printed = elsewhere(code, tmp_path)
    assert "generalist" in printed
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]
    assert all("error" not in line and line["baseline"] is not None for line in found.values()), found


def test_without_proc_a_process_is_known_by_its_start_and_no_signal_is_sent(monkeypatch):
    """On Windows `os.kill(number, 0)`, which asks elsewhere whether there is such a process, ends it."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(lock, "_text", lambda path: "")
    monkeypatch.setattr(lock.Path, "exists", lambda path: False)
    monkeypatch.delattr(os, "kill")
    began = lock._began(os.getpid())
    assert float(began) > 0 and lock._began(os.getpid()) == began
    assert lock._began(gone.pid) == "" and lock._began("none") == ""
