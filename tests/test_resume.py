"""A run that was stopped and resumed leaves the same weights, state and log as one that never stopped, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist.run import train as run
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.train.checkpoints import checkpoint
from generalist.train.events import read_log
from tests.tiny import tiny

TIMES = {"seconds", "waited", "samples_per_second", "time"}


def untimed(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in TIMES} for event in read_log(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGTERM) -> None:
    """Send this process a signal while `step` is computed."""
    from generalist.train.engines.local import LocalEngine

    taken, plain = [], LocalEngine.step

    def step_and_signal(self: LocalEngine, *args: float) -> float:
        taken.append(None)
        if len(taken) == step:
            os.kill(os.getpid(), number)
        return plain(self, *args)

    monkeypatch.setattr(LocalEngine, "step", step_and_signal)


# drop_path draws from the process's own random state; the balanced optimiser and AdamW keep different state
@pytest.mark.parametrize(
    "keys",
    [
        {"model__drop_path": 0.3},
        {"optimizer__kind": "adamw", "model__drop_path": 0.3, "workers": 1, "engine__accumulate": 2},
    ],
    ids=["balanced", "adamw, one loader worker, two micro steps"],
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(keys, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    train_run(tiny(**keys), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        stop_at(6, patch)
        with pytest.raises(Interrupted):
            train_run(tiny(**keys), tmp_path / "parts", quiet=True)
    assert checkpoint.latest(tmp_path / "parts")[0] == 7  # the step under way is ended, and the next one asks
    train_run(tiny(**keys), tmp_path / "parts", resume=True, quiet=True)

    assert [e["step"] for e in untimed(tmp_path / "whole")] == list(range(12))
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "parts")
    (_, a), (_, b) = checkpoint.latest(tmp_path / "whole"), checkpoint.latest(tmp_path / "parts")
    whole, parts = (torch.load(f / "state.pt", weights_only=True) for f in (a, b))
    assert same(whole, parts)
    assert not same(whole["model"], tiny_start(keys))


def tiny_start(keys: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights before the first step: a training that moves nothing would pass every comparison."""
    from generalist.model.objective import Objective
    from generalist.train.prepare import prepare

    made = tiny(**keys)
    prepared = prepare(made)
    return Objective(prepared.model(made), prepared.sets, prepared.modalities).state_dict()
