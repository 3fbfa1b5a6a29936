"""What tests of real launches share: processes, two network namespaces as two nodes, waiting, comparing weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from generalist.machine.ranks import VARIABLES
from generalist.train.checkpoints.checkpoint import latest
from generalist.train.events import LOG

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "tests" / "tiny.py"
ADDRESSES = ("10.0.0.1", "10.0.0.2")
# Real time may pass without this test's processes getting any: every wait is long, and ends as soon as it can.
PATIENCE = 280.0


def real_programs() -> Path:
    """The folder of the environment's own python, generalist, torchrun, deepspeed and accelerate."""
    return Path(sys.executable).parent


@dataclass
class Node:
    """Runs commands as one node of a launch: in a network namespace ("" for none) and a working folder."""

    folder: Path
    programs: Path
    namespace: str = ""
    address: str = "127.0.0.1"
    started: list[subprocess.Popen] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if k not in VARIABLES and not k.startswith(("TORCHELASTIC", "PET_"))
        }
        path = f"{self.programs}:{kept['PATH']}"
        return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PATH": path} | more

    def start(self, command: str | list[str], log: Path, **variables: str) -> subprocess.Popen:
        """A line of shell, or words; its output is added to `log`."""
        words = ["sh", "-c", f"exec {command}"] if isinstance(command, str) else command
        if self.namespace:
            words = ["ip", "netns", "exec", self.namespace, *words]
        with log.open("a") as file:
            process = subprocess.Popen(
                words, stdout=file, stderr=subprocess.STDOUT, env=self.environment(**variables), cwd=self.folder
            )
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()


@contextmanager
def two_nodes(folder: Path, programs: Path) -> Iterator[list[Node]]:
    """Two network namespaces joined by a cable, with the addresses of the page on many nodes."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two nodes on one machine need root and the ip command (network namespaces)")
    names = [f"gen{os.getpid()}{end}" for end in "ab"]

    def ip(*arguments: str, check: bool = True) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if check and done.returncode:
            pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")

    nodes = [Node(folder, programs, name, address) for name, address in zip(names, ADDRESSES, strict=True)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for node in nodes:
            ip("-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", "eth0")
            ip("-n", node.namespace, "link", "set", "eth0", "up")
            ip("-n", node.namespace, "link", "set", "lo", "up")
        yield nodes
    finally:
        for node in nodes:
            node.end()
        for name in names:
            ip("netns", "delete", name, check=False)


def steps_done(out: Path) -> int:
    path = out / LOG
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(what: Callable[[], bool], *processes: subprocess.Popen, seconds: float = PATIENCE) -> bool:
    """Until `what()` holds or all processes have ended; whether it held."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        if processes and all(p.poll() is not None for p in processes):
            return bool(what())
        time.sleep(0.02)
    return False


def finished(process: subprocess.Popen, log: Path, code: int = 0, seconds: float = PATIENCE) -> None:
    """The process ends by itself, with this exit code."""
    try:
        found = process.wait(seconds)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still running after {seconds} s:\n{log.read_text()[-3000:]}")
    assert found == code, log.read_text()[-4000:]


def trainers(node: Node) -> dict[int, int]:
    """{rank: process id} of the trainers that live and work in this node's folder, of all nodes of the launch."""
    found = {}
    forks = {int((d / "pid").read_text() or 0): d for d in node.programs.parent.glob("*/") if (d / "pid").exists()}
    forked = (node.programs.parent / "requests").exists()
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with suppress(OSError):
            fork = forks.get(pid)
            if Path(os.readlink(path / "cwd")) != node.folder or (forked and fork is None):
                continue
            variables = (fork / "env" if fork else path / "environ").read_bytes().split(b"\0")
            words = (fork / "argv" if fork else path / "cmdline").read_bytes()
            rank = next((int(v[5:]) for v in variables if v.startswith(b"RANK=")), None)
            if rank is not None and b"generalist.cli" in words:
                found[rank] = pid
    return found


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def equal(a: Path, b: Path) -> bool:
    """Whether two folders (checkpoints, or runs' own) hold the same weights to the last bit."""
    first, second = load_weights(a), load_weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def same_weights(a: Path, b: Path, steps: int) -> None:
    assert latest(a)[0] == latest(b)[0] == steps
    assert equal(latest(a)[1], latest(b)[1])
