"""Real launchers without their imports: `python`, `torchrun`, `deepspeed` ... on PATH that are forks of this process.

A launch of two nodes starts five or more interpreters, and each would spend seconds on importing torch and DeepSpeed.
`programs(folder)` writes small shell scripts by those names; each hands its words, environment, working folder,
output and network namespace to a server, which forks itself (everything is imported already), becomes that program
and gives its exit code back. SIGTERM and SIGINT are passed on. Only imports are spared: arguments, processes, signals,
sockets and exit codes are the real ones. The long tests use the real programs instead.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAMES = ("python", "generalist", "torchrun", "deepspeed", "accelerate")
NEW_NETWORK = 0x40000000  # CLONE_NEWNET
SCRIPT = """#!/bin/sh
# {name}: see tests/forked.py
d=$(mktemp -d "{folder}/XXXXXX")
env -0 > "$d/env"
pwd > "$d/cwd"
echo "{name}" > "$d/name"
: > "$d/argv"
for word in "$@"; do printf '%s\\0' "$word" >> "$d/argv"; done
trap 'kill -TERM "$(cat "$d/pid")"' TERM
trap 'kill -INT "$(cat "$d/pid")"' INT
trap : USR1
echo "$$ $d" > "{folder}/requests"
# the server writes the code and sends USR1; any signal ends the waiting early
while ! [ -s "$d/code" ]; do sleep 2 > /dev/null 2>&1 & wait $!; done
exit "$(cat "$d/code")"
"""


@contextmanager
def programs(folder: Path) -> Iterator[Path]:
    """A folder for PATH that holds NAMES. `folder` is made; what was started and still runs is ended."""
    (folder / "bin").mkdir(parents=True)
    for name in NAMES:
        path = folder / "bin" / name
        path.write_text(SCRIPT.format(name=name, folder=folder))
        path.chmod(0o755)
    os.mkfifo(folder / "requests")
    # an interpreter of its own: a process in which autograd's threads run once cannot be forked any more
    here = Path(__file__).resolve().parent
    paths = {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-c", "import sys, forked; forked.main(sys.argv[1])", str(folder)]
    server = subprocess.Popen(words, env=os.environ | paths)
    try:
        yield folder / "bin"
    finally:
        (folder / "end").touch()
        server.terminate()
        server.wait()


def main(folder: str) -> None:
    """The server's whole life."""
    import torch

    torch.set_num_threads(1)
    load()
    serve(Path(folder))


def load() -> None:
    """Import once what every program needs, and read the tests' data."""
    import accelerate.commands.launch
    import deepspeed.launcher.runner
    import torch.distributed.run
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    import generalist.cli
    import generalist.report.report
    import generalist.run.results
    from generalist.recipe.load import load_recipe
    from generalist.train.engines.deepspeed_library import load_deepspeed
    from generalist.train.prepare import prepare

    load_deepspeed()
    # torchrun's rendezvous names the caller in its log by walking through every module that is imported, which are
    # thousands here: it would spend minutes on that
    dynamic_rendezvous.get_method_name = lambda depth=2: "rendezvous"
    prepare(load_recipe(str(Path(__file__).with_name("tiny.py"))))
    assert accelerate and deepspeed and torch and generalist


def serve(folder: Path) -> None:
    """Fork a program for every request until SIGTERM; then end those that are left."""
    os.setsid()
    running: dict[int, Path] = {}

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                code = os.waitstatus_to_exitcode(status)
                place = running.pop(pid)
                (place / "part").write_text(str(code if code >= 0 else 128 - code))
                (place / "part").rename(place / "code")
                with suppress(OSError):  # the script was killed: nobody waits
                    os.kill(int((place / "script").read_text()), signal.SIGUSR1)

    def end(*_: object) -> None:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGTERM, end)
    both = os.open(folder / "requests", os.O_RDWR)  # a writer of its own: never at its end
    with os.fdopen(both, encoding="utf-8") as requests:
        for line in requests:
            script, _, place = line.strip().partition(" ")
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
            pid = os.fork()
            if pid == 0:
                become(int(script), Path(place))
            running[pid] = Path(place)
            (Path(place) / "pid").write_text(str(pid))
            (Path(place) / "script").write_text(script)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})


def become(script: int, place: Path) -> None:
    """In a fork: take over the place of the script with this process id, run its program and end."""
    code = 1
    atexit._clear()  # what was registered there is not this program's to end
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})
        for number in (1, 2):
            handle = os.open(f"/proc/{script}/fd/{number}", os.O_WRONLY | os.O_APPEND)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        namespace = os.open(f"/proc/{script}/ns/net", os.O_RDONLY)
        if os.fstat(namespace).st_ino != os.stat("/proc/self/ns/net").st_ino:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace, NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
        os.environ.clear()
        for pair in (place / "env").read_bytes().split(b"\0"):
            if pair:
                key, _, value = pair.partition(b"=")
                os.environb[key] = value
        os.chdir((place / "cwd").read_text().rstrip("\n"))
        words = [os.fsdecode(w) for w in (place / "argv").read_bytes().split(b"\0")[:-1]]
        sys.executable = str(place.parent / "bin" / "python")
        code = run((place / "name").read_text().strip(), words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(name: str, words: list[str]) -> int:
    """What the program of this name does with these words."""
    if name == "python":
        while words and words[0] == "-u":
            words = words[1:]
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = words[1:]
            exec(words[1], {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        return 0
    sys.argv = [name, *words]
    if name == "generalist":
        from generalist.cli import main

        return main(words)
    if name == "torchrun":
        from torch.distributed.run import main as torchrun

        torchrun(words)
    elif name == "deepspeed":
        from deepspeed.launcher.runner import main as deepspeed

        deepspeed(words)
    else:
        from accelerate.commands.accelerate_cli import main as accelerate

        accelerate()
    return 0
