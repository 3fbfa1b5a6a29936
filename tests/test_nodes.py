"""Real launches: killed processes go on with the same weights, two network namespaces train as two nodes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from generalist.checkpoint import checkpoints, latest
from generalist.engine import read_meta
from generalist.events import LOG, read_log
from generalist.launch import Launch
from generalist.ranks import VARIABLES, free_port
from generalist.recipe import Recipe, load_recipe, override
from generalist.run import train_run

ROOT = Path(__file__).resolve().parent.parent
RECIPE = str(ROOT / "tests" / "tiny.py")
STEPS = 80
KEYS = [f"steps={STEPS}", "checkpoint.every=3", "model.drop_path=0.2"]


def words(out: Path, *keys: str) -> list[str]:
    return ["train", RECIPE, *KEYS, *keys, "--out", str(out), "--quiet", "--auto-resume"]


def made(*keys: str) -> Recipe:
    recipe = load_recipe(RECIPE)
    override(recipe, *keys)
    return recipe


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def start(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("a") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(), cwd=ROOT)


def steps_done(out: Path) -> int:
    path = out / LOG
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(what, seconds: float, *processes: subprocess.Popen) -> bool:
    """Until `what()` holds or a process ends; whether it held."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        if processes and all(p.poll() is not None for p in processes):
            return bool(what())
        time.sleep(0.01)
    return False


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def same_weights(a: Path, b: Path) -> None:
    from safetensors.torch import load_file

    first, second = (load_file(latest(out)[1] / "model" / "model.safetensors") for out in (a, b))
    assert latest(a)[0] == latest(b)[0] == STEPS
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def kill_and_restart(folder: Path, kills: int, seed: int) -> None:
    """One process, killed without warning at random moments and started again with the same command."""
    chance = random.Random(seed)
    command = [sys.executable, "-m", "generalist.cli"]
    whole, parts = folder / "whole", folder / "parts"
    train_run(made(*KEYS), whole, quiet=True)
    done = 0
    for number in range(kills):
        process = start([*command, *words(parts)], folder / "parts.txt")
        target = done + chance.randint(1, max(1, (STEPS - done) // (kills - number) - 1))
        assert wait_for(lambda target=target: steps_done(parts) >= target, 200, process), (
            folder / "parts.txt"
        ).read_text()
        time.sleep(chance.random() * 0.03)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        found = checkpoints(parts)
        done = found[-1][0] if found else 0
    assert start([*command, *words(parts)], folder / "parts.txt").wait(280) == 0, (folder / "parts.txt").read_text()
    same_weights(whole, parts)


def test_a_process_killed_at_random_moments_ends_with_the_weights_of_one_that_was_not(tmp_path):
    kill_and_restart(tmp_path, kills=2, seed=0)


@pytest.mark.soak
def test_twenty_kills_at_random_moments_change_no_bit(tmp_path):
    for seed in range(1, 5):
        (tmp_path / str(seed)).mkdir()
        kill_and_restart(tmp_path / str(seed), kills=5, seed=seed)


def test_sigterm_to_the_launcher_saves_and_a_later_start_goes_on(tmp_path):
    command = [sys.executable, "-m", "generalist.cli", *words(tmp_path / "run", "steps=100000", "checkpoint.every=0")]
    process = start(command, tmp_path / "out.txt")
    assert wait_for(lambda: steps_done(tmp_path / "run") > 3, 200, process), (tmp_path / "out.txt").read_text()
    asked = time.monotonic()
    process.terminate()
    assert process.wait(60) == 0
    assert time.monotonic() - asked < 30
    assert "go on with: generalist train" in (tmp_path / "out.txt").read_text()
    assert latest(tmp_path / "run")[0] > 3


# --- two nodes ---


@pytest.fixture
def namespaces() -> Iterator[tuple[list[str], list[str]]]:
    """Two network namespaces joined by a cable: their names and addresses."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two nodes on one machine need root and the ip command (network namespaces)")
    names = [f"gen{os.getpid()}{end}" for end in "ab"]
    addresses = ["10.77.0.1", "10.77.0.2"]

    def ip(*arguments: str, check: bool = True) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if check and done.returncode:
            pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names, addresses
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)


def start_nodes(
    folder: Path, namespaces: tuple[list[str], list[str]], command: list[str], restarts: int
) -> list[tuple[subprocess.Popen, Path]]:
    """torchrun's agent of every node with its output, by the line that `generalist train --nodes` prints."""
    names, addresses = namespaces
    plan = Launch(addresses, command, interface="eth0", restarts=restarts, python=sys.executable)
    started = []
    for node, name in enumerate(names):
        variables = [f"{k}={v}" for k, v in plan.environment().items()]
        log = folder / f"node{node}.txt"
        started.append((start(["ip", "netns", "exec", name, "env", *variables, *plan.words(node)], log), log))
    return started


def two_nodes(folder: Path, namespaces: tuple[list[str], list[str]], kills: int, *keys: str) -> None:
    """Train over the two namespaces, kill a random worker at random moments, compare with two undisturbed ranks."""
    calm, rough = folder / "calm", folder / "rough"
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    together += ["--master-port", str(free_port()), "-m", "generalist.cli", *words(calm, *keys)]
    assert start(together, folder / "calm.txt").wait(280) == 0, (folder / "calm.txt").read_text()[-3000:]

    started = start_nodes(folder, namespaces, words(rough, *keys), restarts=3 * kills + 3)
    agents = [agent for agent, _ in started]
    try:
        chance = random.Random(5)
        for number in range(kills):
            target = (number + 1) * STEPS // (kills + 2)
            shown = lambda: "".join((folder / f"node{n}.txt").read_text()[-2000:] for n in (0, 1))  # noqa: E731
            assert wait_for(lambda target=target: steps_done(rough) >= target, 250, *agents), shown()
            os.kill(chance.choice(children(chance.choice(agents).pid)), signal.SIGKILL)
        for node, agent in enumerate(agents):
            assert agent.wait(280) == 0, (folder / f"node{node}.txt").read_text()[-3000:]
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.terminate()
                agent.wait(60)
    same_weights(calm, rough)


@pytest.mark.timeout(600)
def test_two_namespaces_train_as_two_nodes_and_follow_the_curve_of_one_process(tmp_path, namespaces):
    keys = ["model.drop_path=0", "steps=20"]
    train_run(made(*KEYS, *keys), tmp_path / "alone", quiet=True)
    for agent, log in start_nodes(tmp_path, namespaces, words(tmp_path / "both", *keys), restarts=0):
        assert agent.wait(550) == 0, log.read_text()[-3000:]
    alone, both = ([e["loss"] for e in read_log(tmp_path / name)] for name in ("alone", "both"))
    assert len(both) == 20
    assert both == pytest.approx(alone, abs=1e-5)
    meta = read_meta(latest(tmp_path / "both")[1])
    assert (meta["engine"], meta["world"]) == ("deepspeed", 2)


@pytest.mark.soak
def test_two_nodes_go_on_after_a_killed_worker(tmp_path, namespaces):
    two_nodes(tmp_path, namespaces, 1)


@pytest.mark.soak
def test_two_nodes_lose_random_ranks_again_and_again(tmp_path, namespaces):
    two_nodes(tmp_path, namespaces, 10, "engine.zero_stage=3")
