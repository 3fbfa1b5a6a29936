"""The training loop: one task a step, one likelihood, one scalar to the engine.

at step t:  k ~ shares (all ranks the same)     batch of task k
            loss = w_k * sum(-log p) * world / global count
            MT-AdamW step with share s_k and length omega_k
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from generalist.data.batch.types import Batch
from generalist.data.stream.schedule import Schedule
from generalist.machine.collectives import sum_over_ranks
from generalist.tasks.base.task import Task
from generalist.train.engines.base import Engine
from generalist.train.methods.base import Added
from generalist.train.optimizer import learning_rate


@dataclass
class StepResult:
    """What one step says of itself, the same on every rank but for `bad`.

    loss: mean -log p of an answer in nats; samples and seconds of this step, all ranks together; applied:
    whether the weights moved; stop and saved: whether a rank was asked to stop, and whether every rank has
    written its part of a checkpoint; unread: samples that no rank could decode; fresh: those of
    them that failed for the first time; bad: those of this rank;
    added: mean of what a method added to the loss, an answer.
    """

    step: int
    task: str
    loss: float
    samples: int
    seconds: float
    waited: float
    lr: float
    gradient_norm: float
    applied: bool = True
    stop: bool = False
    saved: bool = False
    unread: int = 0
    fresh: int = 0
    bad: tuple[str, ...] = ()
    added: dict[str, float] = field(default_factory=dict)


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
    flags: Callable[[], tuple[bool, bool]] = lambda: (False, False),
    trusted: Callable[[str, float], bool] = lambda task, loss: True,
    skip: frozenset[int] = frozenset(),
    method: Added | None = None,
    factor: Callable[[int], float] | None = None,
) -> None:
    """Steps first..steps-1. `after` sees every step's result (progress, log, checkpoints).

    flags: whether this process is asked to stop, and whether its checkpoint is written; trusted: whether
    a step with this task and mean loss may move the weights; skip: steps that are left out;
    method: what adds to the objective's loss; factor: of lr at a step, without it warm-up and cosine.
    """
    factor = factor or partial(learning_rate, total=steps, warmup=warmup)
    broken: set[str] = set()  # what failed before, so that a record that comes round again is known
    for step in range(first, steps):
        start = time.perf_counter()
        micro = [next(batches) for _ in range(accumulate)]
        if step in skip:
            continue
        micro = [batch.to(engine.device) for batch in micro]
        waited = time.perf_counter() - start
        task = tasks[micro[0].task]
        bad = tuple(line for b in micro for line in b.skipped)
        # the mean over all answers of the step, not of every rank's own mean: ragged batches count alike
        new = set(bad) - broken
        broken |= new
        own = [sum(b.count for b in micro), sum(b.inputs.sequences for b in micro), len(bad), len(new)]
        count, samples, unread, fresh = sum_over_ranks(torch.tensor(own, dtype=torch.float64, device=engine.device))
        total = torch.zeros(1, device=engine.device)
        for batch in micro:
            summed = engine.loss(batch)
            engine.backward((task.weight * engine.world * summed / count.float()).sum())
            total += summed.detach()
        added = {} if method is None else {method.method.name: float(method.take())}
        # in one message what every rank must know alike: the loss, who is asked to stop, who has written its checkpoint
        own_law = float(total) - sum(added.values())
        told = torch.tensor([own_law, *flags(), *added.values()], dtype=torch.float64, device=engine.device)
        summed_loss, stop, saved, *more = sum_over_ranks(told).tolist()
        loss = summed_loss / float(count)
        rate = lr * factor(step)
        apply = trusted(task.name, loss)
        norm = engine.step(rate, schedule.share(task.name, step), task.omega, apply)
        after(
            StepResult(
                step,
                task.name,
                loss,
                int(samples),
                time.perf_counter() - start,
                waited,
                rate,
                norm,
                applied=apply and norm - norm == 0,  # false for NaN and infinity
                stop=bool(stop),
                saved=int(saved) == engine.world,
                unread=int(unread),
                fresh=int(fresh),
                bad=bad,
                added={name: value / float(count) for name, value in zip(added, more, strict=True)},
            )
        )
