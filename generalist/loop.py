"""The training loop: one task a step, one likelihood, one scalar to the engine.

    at step t:  k ~ shares (all ranks the same)     batch of task k
                loss = w_k * sum(-log p) * world / global count
                MT-AdamW step with share s_k and length omega_k
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from data.schedule import Schedule
from data.types import Batch
from generalist.distributed import sum_over_ranks
from generalist.engine import Engine
from generalist.optimizer import learning_rate
from tasks.base import Task


@dataclass
class StepResult:
    """What one step says of itself. loss: mean -log p of an answer in nats; samples and seconds of this step."""

    step: int
    task: str
    loss: float
    samples: int
    seconds: float
    waited: float
    lr: float
    gradient_norm: float


def train(
    engine: Engine,
    batches: Iterator[Batch],
    tasks: dict[str, Task],
    schedule: Schedule,
    first: int,
    steps: int,
    lr: float,
    warmup: int,
    accumulate: int = 1,
    after: Callable[[StepResult], None] = lambda result: None,
) -> None:
    """Steps first..steps-1. `after` sees every step's result (progress, log, checkpoints)."""
    for step in range(first, steps):
        start = time.perf_counter()
        micro = [next(batches).to(engine.device) for _ in range(accumulate)]
        waited = time.perf_counter() - start
        task = tasks[micro[0].task]
        # the mean over all answers of the step, not of every rank's own mean: ragged batches count alike
        count = sum_over_ranks(torch.tensor([float(sum(b.count for b in micro))], device=engine.device))
        total = torch.zeros(1, device=engine.device)
        for batch in micro:
            summed = engine.loss(batch)
            engine.backward((task.weight * engine.world * summed / count).sum())
            total += summed.detach()
        rate = lr * learning_rate(step, steps, warmup)
        norm = engine.step(rate, schedule.share(task.name), task.omega)
        loss = float(sum_over_ranks(total) / count)
        samples = sum(b.inputs.sequences for b in micro) * engine.world
        after(StepResult(step, task.name, loss, samples, time.perf_counter() - start, waited, rate, norm))
