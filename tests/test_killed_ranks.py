"""A rank is killed, the newest checkpoint loses a shard, and the run goes on at another size or ZeRO stage."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from nodes import Node, finished, steps_done, trainers, wait_for
from test_nodes import made, together

from generalist.run.train import train_run
from generalist.train.checkpoints.checkpoint import checkpoints, latest, verify
from generalist.train.engines.base import read_meta
from generalist.train.events import read_log

pytestmark = pytest.mark.timeout(900)
STEPS = 60
KEYS = [f"steps={STEPS}", "model.drop_path=0", "checkpoint.keep=0", "checkpoint.every=3"]
KEYS += [f"tasks.{task}.batch=12" for task in ("digits", "wine")]


def killed(node: Node, out: str, processes: int, stage: int) -> None:
    """Two ranks or more under a launcher that starts nothing again; one is killed behind the third checkpoint."""
    log = node.folder / f"{out}.txt"
    agent = node.start(together(node, out, *KEYS, f"engine.zero_stage={stage}", processes=processes), log)
    assert wait_for(lambda: steps_done(node.folder / out) >= 11 and len(trainers(node)) == processes, agent), (
        log.read_text()[-3000:]
    )
    os.kill(trainers(node)[processes - 1], signal.SIGKILL)
    finished(agent, log, code=1)


def damage(folder: Path) -> str:
    """A bit of the last rank's shard is turned; its name."""
    shard = sorted((folder / "deepspeed").glob("*optim_states.pt"))[-1]
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(bytes(raw))
    return shard.name


def follows(out: Path, alone: Path) -> None:
    """The curve of one process that nobody disturbed, step by step."""
    mine, theirs = ({event["step"]: event["loss"] for event in read_log(folder)} for folder in (out, alone))
    assert list(mine) == list(theirs) == list(range(STEPS))
    assert list(mine.values()) == pytest.approx(list(theirs.values()), rel=2e-3)


@pytest.mark.parametrize(
    ("processes", "stage", "then", "at"),
    [
        (2, 1, 1, 0),
        pytest.param(2, 3, 1, 0, marks=pytest.mark.soak),
        pytest.param(2, 1, 2, 3, marks=pytest.mark.soak),
        pytest.param(2, 3, 2, 2, marks=pytest.mark.soak),
        pytest.param(3, 2, 2, 1, marks=pytest.mark.soak),
        pytest.param(2, 2, 3, 3, marks=pytest.mark.soak),
    ],
)
def test_a_killed_rank_and_a_damaged_shard_cost_three_steps_at_any_size_and_stage(
    tmp_path, forks, capfd, processes, stage, then, at
):
    """From `processes` at ZeRO `stage` to `then` at stage `at` (one process: without DeepSpeed)."""
    node, out = Node(tmp_path, forks), tmp_path / "run"
    try:
        killed(node, "run", processes, stage)
        (before, _), (newest, folder) = checkpoints(out)[-2:]
        assert 9 <= newest < STEPS
        name = damage(folder)
        with pytest.raises(ValueError, match=f"{name} is broken"):
            verify(folder)
        if then == 1:
            train_run(made(*KEYS), out, resume=True, quiet=True)
            said = capfd.readouterr().err
        else:
            log = tmp_path / "again.txt"
            finished(node.start(together(node, "run", *KEYS, f"engine.zero_stage={at}", processes=then), log), log)
            said = log.read_text()
    finally:
        node.end()
    assert f"{folder.name}/deepspeed/{name} is broken" in said and f"after step {before}" in said
    step, folder = latest(out)
    assert step == STEPS and read_meta(folder)["world"] == then
    train_run(made(*KEYS), tmp_path / "alone", quiet=True)
    follows(out, tmp_path / "alone")
