"""On a GPU: every engine trains the local engine's curve, a run goes on where it stopped, a plan's bytes are real."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny

from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.model.objective import Objective
from generalist.train.checkpoints.checkpoint import checkpoints
from generalist.train.counted import count
from generalist.train.optimizer import build_optimizer
from generalist.train.plan import state_bytes
from generalist.train.prepare import prepare

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def losses(folder: Path, *more: str, **keys: Any) -> list[float]:
    """Of a run as the command trains it, in a process of its own: DeepSpeed leaves traces in the one it ran in."""
    words = [f"{key.replace('__', '.')}={value}" for key, value in keys.items()]
    command = [sys.executable, "-m", "generalist.cli", "train", str(Path(__file__).with_name("tiny.py"))]
    command += ["--out", str(folder), *more, f"engine.device={DEVICE}", "optimizer.kind=adamw", *words]
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}  # tests say cpu
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return read(folder)


def read(folder: Path) -> list[float]:
    """The loss of every step; of a step written twice, the later one."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return list({line["step"]: line["loss"] for line in lines if "loss" in line}.values())


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(tmp_path_factory.mktemp("local") / "run", engine__kind="local")


@needs_deepspeed
@pytest.mark.parametrize(
    "keys",
    [
        {"engine__zero_stage": 0},
        {"engine__zero_stage": 1, "engine__offload": "cpu"},
        {"engine__zero_stage": 2, "engine__offload": "cpu"},
        {"engine__zero_stage": 0, "engine__activation_checkpointing": True},
        {"engine__zero_stage": 3},
        {"engine__zero_stage": 3, "engine__offload": "cpu"},
    ],
    ids=str,
)
def test_deepspeed_trains_the_local_curve(keys, local, tmp_path):
    found = losses(tmp_path / "run", engine__kind="deepspeed", **keys)
    assert len(found) == len(local) == 12
    assert found == pytest.approx(local, rel=1e-5)


@needs_deepspeed
@pytest.mark.parametrize(("precision", "far"), [("bf16", 0.15), ("fp16", 0.6)])  # fp16: a step or two find the scale
def test_half_precision_trains_about_the_same_curve(precision, far, local, tmp_path):
    found = losses(tmp_path / "run", engine__kind="deepspeed", engine__precision=precision)
    assert all(math.isfinite(loss) for loss in found)
    assert found[0] == pytest.approx(local[0], abs=0.02)
    assert found == pytest.approx(local, abs=far)


@pytest.mark.parametrize("kind", ["local", pytest.param("deepspeed", marks=needs_deepspeed)])
def test_a_resumed_run_ends_as_an_uninterrupted_one(kind, tmp_path):
    keys = {"engine__kind": kind}
    whole = losses(tmp_path / "run", **keys)
    _, last = checkpoints(tmp_path / "run")[-1]
    shutil.rmtree(last)
    (tmp_path / "run" / "metrics.json").unlink()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:8]))
    assert losses(tmp_path / "run", "--resume", **keys) == pytest.approx(whole, rel=1e-6)


def allocated() -> int:
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def test_a_plans_bytes_are_those_that_the_gpu_allocates():
    recipe = tiny(
        model__layers=4, model__width=256, model__heads=4, model__hidden=1024, optimizer__kind="adamw",
        tasks__digits__batch=128, tasks__wine__batch=96,
    )  # fmt: skip
    number, layer, counted = count(recipe, 1)
    planned = state_bytes(number, layer, stage=0, world=1)
    prepared = prepare(recipe)
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    empty = allocated()
    objective.to(DEVICE)
    assert allocated() - empty == pytest.approx(planned["parameters"], rel=0.1)
    schedule = Schedule(list(prepared.tasks), [t.share for t in prepared.tasks.values()], recipe.seed)
    reader = Steps(prepared.feeds(), schedule, recipe.seed)
    for name in prepared.tasks:
        batch = reader[next(s for s in range(100) if schedule.task_at(s) == name)].to(DEVICE)
        if batch.candidates is not None:
            objective.packed(batch.candidates)
        objective(batch).sum().backward()  # libraries' own workspaces are allocated at the first step
        objective.zero_grad(set_to_none=True)
        before = allocated()
        loss = objective(batch).sum()
        assert allocated() - before == pytest.approx(counted[name].activations, rel=0.1), name
        loss.backward()
        del loss
    objective.zero_grad(set_to_none=True)
    before = allocated()
    for p in objective.parameters():
        p.grad = torch.zeros_like(p)
    assert allocated() - before == pytest.approx(planned["gradients"], rel=0.1)
    optimizer = build_optimizer(recipe, objective)
    before = allocated()
    optimizer.step()
    assert allocated() - before == pytest.approx(planned["optimizer"], rel=0.1)
