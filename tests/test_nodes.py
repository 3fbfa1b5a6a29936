"""Real launches: ranks that are killed go on with the same weights, SIGTERM saves once, a lost node is done without.

Several processes under torchrun, on one machine and in two network namespaces as two nodes. The interpreters are
forks of this one (tests/forked.py), so that a start costs a second; the long tests also use the real ones.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from nodes import (
    RECIPE,
    Node,
    equal,
    finished,
    real_programs,
    same_weights,
    steps_done,
    trainers,
    two_nodes,
    wait_for,
)

from generalist.machine.command_line import Launch
from generalist.machine.ranks import free_port
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe
from generalist.recipe.recipe import Recipe
from generalist.run.train import train_run
from generalist.train.checkpoints.checkpoint import checkpoints, latest
from generalist.train.engines.base import read_meta
from generalist.train.events import read_log

pytestmark = pytest.mark.timeout(900)
STEPS = 24
KEYS = ["checkpoint.every=3", "model.drop_path=0.2"]


def made(*keys: str) -> Recipe:
    recipe = load_recipe(str(RECIPE))
    override(recipe, *keys)
    return recipe


def words(out: str, *keys: str) -> list[str]:
    return ["train", str(RECIPE), *KEYS, *keys, "--out", out, "--quiet", "--auto-resume"]


def together(node: Node, out: str, *keys: str, processes: int = 2, restarts: int = 0, plain: bool = False) -> list[str]:
    """The line for several ranks on one machine: this project's agent, or plain torchrun (one store for all tries)."""
    line = ["python", "-m", "generalist.launchers.agent", "--standalone"]
    if plain:
        line = ["torchrun", "--master-port", str(free_port())]
    line += ["--nproc-per-node", str(processes)]
    return [*line, "--max-restarts", str(restarts), "-m", "generalist.cli", *words(out, *keys)]


def agents_of(nodes: list[Node], out: str, *keys: str, restarts: int = 0, fewest: int = 0) -> list[subprocess.Popen]:
    """torchrun's agent of every node, by the line that `generalist train --nodes` prints."""
    addresses = [node.address for node in nodes]
    plan = Launch(
        addresses, words(out, *keys), interface="eth0", restarts=restarts, min_nodes=fewest, name=out, python="python"
    )
    return [
        node.start(plan.words(i), node.folder / f"{out}.{i}.txt", **plan.environment()) for i, node in enumerate(nodes)
    ]


def ended_well(agents: list[subprocess.Popen], folder: Path, out: str) -> None:
    for number, agent in enumerate(agents):
        finished(agent, folder / f"{out}.{number}.txt")


# --- kills ---


class Kills:
    """kill -9 of random ranks at random moments, and what each cost."""

    def __init__(self, node: Node, out: str, seed: int) -> None:
        self.node, self.out, self.chance = node, node.folder / out, random.Random(seed)
        self.lines: list[dict[str, float]] = []

    def one(self, target: int, agents: list[subprocess.Popen], log: Callable[[], str]) -> None:
        """Wait for `target` steps (or, one time in four, only for the trainers' start) and a random while; kill one."""
        early = self.lines and self.chance.random() < 0.25
        assert wait_for(lambda: bool(trainers(self.node)), *agents), log()
        if not early:
            assert wait_for(lambda: steps_done(self.out) >= target and bool(trainers(self.node)), *agents), log()
        time.sleep(self.chance.random() * (1.0 if early else 0.2))
        living = trainers(self.node)
        while not living:
            assert wait_for(lambda: bool(trainers(self.node)), *agents), log()
            living = trainers(self.node)
        rank = self.chance.choice(sorted(living))
        os.kill(living[rank], signal.SIGKILL)
        killed, done = time.monotonic(), steps_done(self.out)
        saved = checkpoints(self.out)
        held = saved[-1][0] if saved else 0
        assert wait_for(lambda: steps_done(self.out) > done + 1, *agents), log()
        lost = time.monotonic() - killed
        self.lines.append({"rank": rank, "step": done, "checkpoint": held, "seconds": lost})

    def table(self, calm: Path) -> str:
        """One line a kill; the last column compares the next checkpoint after it with the undisturbed run's."""
        shown = ["kill  rank  step  last checkpoint  steps redone  seconds lost  equal bitwise"]
        whole = dict(checkpoints(calm))
        for number, line in enumerate(self.lines, 1):
            after = [(step, folder) for step, folder in checkpoints(self.out) if step > line["step"]]
            same = bool(after) and equal(after[0][1], whole[after[0][0]])
            shown.append(
                f"{number:4d}  {line['rank']:4.0f}  {line['step']:4.0f}  {line['checkpoint']:15.0f}  "
                f"{max(0, line['step'] - line['checkpoint']):12.0f}  {line['seconds']:12.1f}  {'yes' if same else 'NO'}"
            )
        return "\n".join(shown)


def killed_again_and_again(
    node: Node, kills: int, steps: int, *keys: str, processes: int = 2, seed: int = 0, plain: bool = False
) -> str:
    """One machine: torchrun, `kills` kills, compared with a run that nobody disturbed. Returns the table."""
    keep = [f"steps={steps}", "checkpoint.keep=0", *keys]
    calm, rough = node.folder / "calm.txt", node.folder / "rough.txt"
    finished(node.start(together(node, "calm", *keep, processes=processes), calm), calm)
    agent = node.start(together(node, "rough", *keep, processes=processes, restarts=3 * kills, plain=plain), rough)
    record = Kills(node, "rough", seed)
    for number in range(kills):
        record.one((number + 1) * (steps - 4) // (kills + 1), [agent], lambda: rough.read_text()[-3000:])
    finished(agent, rough)
    same_weights(node.folder / "calm", node.folder / "rough", steps)
    table = record.table(node.folder / "calm")
    assert "NO" not in table, table
    return table


def test_a_rank_killed_at_a_random_moment_is_restarted_and_no_bit_changes(tmp_path, forks):
    node = Node(tmp_path, forks)
    try:
        killed_again_and_again(node, 1, STEPS)
    finally:
        node.end()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("processes", "stage", "plain"), [(2, 1, False), (2, 3, False), (3, 2, False), (3, 3, True)], ids=str
)
def test_kills_of_random_ranks_at_random_moments_change_no_bit(tmp_path, forks, capsys, processes, stage, plain):
    """Five each, twenty in all, under this project's agent and (plain) under torchrun's own."""
    node = Node(tmp_path, forks)
    keys = [f"engine.zero_stage={stage}", *(f"tasks.{task}.batch=6" for task in ("digits", "wine"))]
    try:
        table = killed_again_and_again(node, 5, 30, *keys, processes=processes, seed=stage, plain=plain)
    finally:
        node.end()
    with capsys.disabled():
        agent = "torchrun" if plain else "generalist.launchers.agent"
        print(f"\n{processes} ranks under {agent}, ZeRO stage {stage}, 30 steps, a checkpoint every 3\n{table}")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_nodes_lose_random_ranks_again_and_again(tmp_path, tools, capsys):
    """With forked workers, and with an interpreter of its own for every agent and every rank of every try."""
    steps, kills = 40, 5
    with two_nodes(tmp_path, tools) as nodes:
        keys = [f"steps={steps}", "checkpoint.keep=0", "engine.zero_stage=3"]
        ended_well(agents_of(nodes, "calm", *keys), tmp_path, "calm")
        agents = agents_of(nodes, "rough", *keys, restarts=3 * kills + 3)
        record = Kills(nodes[0], "rough", 5)
        shown = lambda: "".join((tmp_path / f"rough.{n}.txt").read_text()[-2000:] for n in (0, 1))  # noqa: E731
        for number in range(kills):
            record.one((number + 1) * (steps - 4) // (kills + 1), agents, shown)
        ended_well(agents, tmp_path, "rough")
        same_weights(tmp_path / "calm", tmp_path / "rough", steps)
        table = record.table(tmp_path / "calm")
    assert "NO" not in table, table
    with capsys.disabled():
        kind = "an interpreter each" if tools == real_programs() else "forks"
        print(f"\ntwo network namespaces as two nodes ({kind}), ZeRO stage 3\n{table}")


@pytest.mark.soak
def test_one_process_killed_and_started_again_ends_with_the_weights_of_one_that_was_not(tmp_path):
    """Without a launcher: the same command again, real interpreters."""
    node, chance, done = Node(tmp_path, real_programs()), random.Random(0), 0
    train_run(made("steps=60", *KEYS), tmp_path / "whole", quiet=True)
    command = ["python", "-m", "generalist.cli", *words("parts", "steps=60")]
    for _ in range(3):
        process = node.start(command, tmp_path / "parts.txt")
        target = done + chance.randint(1, 12)
        assert wait_for(lambda t=target: steps_done(tmp_path / "parts") >= t, process), (
            tmp_path / "parts.txt"
        ).read_text()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        done = steps_done(tmp_path / "parts")
    finished(node.start(command, tmp_path / "parts.txt"), tmp_path / "parts.txt")
    same_weights(tmp_path / "whole", tmp_path / "parts", 60)


# --- SIGTERM ---


@pytest.mark.parametrize("whom", ["the launcher", "every process"])
def test_sigterm_to_several_ranks_saves_once_and_all_end_well(tmp_path, forks, whom):
    """As Kubernetes does (the first process alone) and as SLURM does (every process, the loaders' workers too)."""
    node, log = Node(tmp_path, forks), tmp_path / "out.txt"
    try:
        agent = node.start(together(node, "run", "steps=100000", "checkpoint.every=0", "workers=1"), log)
        assert wait_for(lambda: steps_done(tmp_path / "run") > 3, agent), log.read_text()[-3000:]
        asked, ranks = time.monotonic(), trainers(node)
        assert sorted(ranks) == [0, 1]
        if whom == "every process":
            workers = [worker.pid for pid in ranks.values() for worker in psutil.Process(pid).children(recursive=True)]
            assert len(workers) == 2
            for pid in [*workers, *ranks.values()]:
                os.kill(pid, signal.SIGTERM)
        agent.terminate()
        finished(agent, log)
        seconds = time.monotonic() - asked
    finally:
        node.end()
    assert seconds < 60
    ((step, _),) = checkpoints(tmp_path / "run")  # one checkpoint, no half of another
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{step:08d}"]
    assert log.read_text().count("go on with: generalist train") == 1
    assert step == steps_done(tmp_path / "run")


def test_sigterm_to_one_process_saves_and_a_later_start_goes_on(tmp_path, tools):
    node, log = Node(tmp_path, tools), tmp_path / "out.txt"
    command = ["python", "-m", "generalist.cli", *words("run", "steps=100000", "checkpoint.every=0")]
    try:
        process = node.start(command, log)
        assert wait_for(lambda: steps_done(tmp_path / "run") > 3, process), log.read_text()
        asked = time.monotonic()
        process.terminate()
        finished(process, log)
        assert time.monotonic() - asked < 60
    finally:
        node.end()
    assert "go on with: generalist train" in log.read_text()
    assert latest(tmp_path / "run")[0] > 3


# --- two nodes ---


def test_two_namespaces_train_as_two_nodes_and_follow_the_curve_of_one_process(tmp_path, tools):
    keys = ["model.drop_path=0", "steps=20"]
    train_run(made(*KEYS, *keys), tmp_path / "alone", quiet=True)
    with two_nodes(tmp_path, tools) as nodes:
        ended_well(agents_of(nodes, "both", *keys), tmp_path, "both")
    alone, both = ([e["loss"] for e in read_log(tmp_path / name)] for name in ("alone", "both"))
    assert len(both) == 20
    assert both == pytest.approx(alone, abs=1e-5)
    meta = read_meta(latest(tmp_path / "both")[1])
    assert (meta["engine"], meta["world"]) == ("deepspeed", 2)


def test_a_lost_node_is_done_without_where_fewer_are_allowed(tmp_path, tools):
    """Agent and trainer of the second node are killed; the first goes on alone from the last checkpoint."""
    with two_nodes(tmp_path, tools) as nodes:
        agents = agents_of(nodes, "run", "steps=400", restarts=3, fewest=1)
        log = tmp_path / "run.0.txt"
        assert wait_for(lambda: len(checkpoints(tmp_path / "run")) > 0, *agents), log.read_text()[-3000:]
        assert read_meta(latest(tmp_path / "run")[1])["world"] == 2
        lost = processes_in(nodes[1])
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
        killed, done = time.monotonic(), steps_done(tmp_path / "run")
        assert wait_for(lambda: read_meta(latest(tmp_path / "run")[1])["world"] == 1, agents[0]), log.read_text()[
            -3000:
        ]
        assert time.monotonic() - killed < 200
        agents[0].terminate()
        finished(agents[0], log)
    assert steps_done(tmp_path / "run") > done
    assert [e["step"] for e in read_log(tmp_path / "run")] == list(range(steps_done(tmp_path / "run")))


def processes_in(node: Node) -> list[int]:
    """All processes in a node's network namespace (scripts, agents and trainers)."""
    done = subprocess.run(["ip", "netns", "pids", node.namespace], capture_output=True, text=True, check=True)
    return [int(pid) for pid in done.stdout.split()]
