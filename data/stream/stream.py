"""Steps -> batches, resumable without state: item `step` of the dataset is the batch of that step.

Workers of the loader fetch whole steps in turn, so the order and the bytes do not depend on how many
there are; a resume starts the sampler at the next step. A sample that cannot be read stops the run or, with
corrupt="skip", gives its place to the next sample of the stream and is named in `Batch.skipped`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from generalist.data.base.errors import UserError, blame, nearest
from generalist.data.base.signals import STOPPING, known
from generalist.data.batch.shipping import ship, unpacked
from generalist.data.batch.types import Batch, Example
from generalist.data.stream.memory import Memory
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Prefetches, Records

CORRUPT = ("stop", "skip")
TRIES = 16  # samples in a row that may be broken before it is no longer a matter of single samples
AHEAD = 16  # draws of a task that its shards are fetched ahead


@dataclass
class Feed:
    """One task's side of the stream: its records, how an example is made of one, and how they collate.

    batch: samples a step over all ranks and micro steps. memory: keeps records that fit, None keeps none.
    """

    records: Records
    example: Callable[[dict[str, Any], torch.Generator | None], Example]
    collate: Callable[[list[Example]], Batch]
    batch: int
    memory: Memory | None = None

    def record(self, name: str, number: int) -> dict[str, Any]:
        """The record of this number of the task's data."""
        return self.records[number] if self.memory is None else self.memory.record(name, self.records.rows, number)


class Steps(Dataset):
    """Map-style: `self[step * accumulate + micro]` is this rank's batch of that micro step.

    corrupt: "stop" at a sample that cannot be read, or "skip" it.
    """

    def __init__(
        self,
        feeds: dict[str, Feed],
        schedule: Schedule,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        corrupt: str = "stop",
    ) -> None:
        if corrupt not in CORRUPT:
            raise UserError(f"corrupt={corrupt!r}; {nearest(corrupt, CORRUPT)} (valid: {', '.join(CORRUPT)})")
        self.feeds, self.schedule, self.seed, self.corrupt = feeds, schedule, seed, corrupt
        self.rank, self.world, self.accumulate = rank, world, accumulate
        for name, feed in feeds.items():
            if len(feed.records) == 0:
                raise UserError(f"task {name}: its training data is empty")
            parts = world * accumulate
            if feed.batch % parts:
                raise UserError(
                    f"task {name}: batch {feed.batch} is not a multiple of {parts} "
                    f"(processes x gradient accumulation); use {max(parts, feed.batch // parts * parts)}"
                )

    def __getitem__(self, index: int) -> Batch:
        step, micro = divmod(index, self.accumulate)
        task = self.schedule.task_at(step, self.rank)
        feed = self.feeds[task]
        own = feed.batch // (self.world * self.accumulate)
        draw = self.schedule.draws_before(step, task, self.rank)
        start = draw * feed.batch + (micro * self.world + self.rank) * own
        if isinstance(feed.records.rows, Prefetches):
            feed.records.rows.prefetch(self._numbers(task, start + AHEAD * feed.batch, own))
        skipped: list[str] = []
        examples = [
            self._example(task, start + offset, number, skipped)
            for offset, number in enumerate(self._numbers(task, start, own))
        ]
        batch = feed.collate(examples)
        batch.skipped = skipped
        return batch

    def _numbers(self, task: str, start: int, count: int) -> list[int]:
        """The records at these positions of the task's stream."""
        feed = self.feeds[task]
        return feed.records.at(self.seed, task, start, count, feed.batch)

    def _example(self, task: str, position: int, number: int, skipped: list[str]) -> Example:
        """The example at a position; where it is broken and may be skipped, that of the next sound position."""
        feed = self.feeds[task]
        # the sample's own randomness: a function of seed and stream position only
        rng = torch.Generator().manual_seed((self.seed * 1_000_003 + position) % 2**63)
        for after in range(1, TRIES + 1):
            name: Any = number
            try:
                record = feed.record(task, number)
                name = record.get("id", number)
                return feed.example(record, rng)
            except Exception as error:  # whatever a sample's reading raises is that sample's fault
                message = f"task {task}, record {name}: {blame(error, 'the sample')}"
                if self.corrupt == "stop":
                    raise UserError(f"{message} (corrupt=skip would leave it out and count it)") from error
                skipped.append(message)
                number = self._numbers(task, position + after, 1)[0]
        raise UserError(f"{TRIES} samples in a row cannot be read; the last one: {skipped[-1]}")


def outlive_stop(worker: int) -> None:
    """In a loader's worker: what asks a run to stop is the trainer's to answer, which needs batches to end its step.

    SLURM signals every process of a job, a terminal every process of its group, and torch's loader fails in the
    trainer when a worker dies of it. A handler, not SIG_IGN, which programs behind `pipe:` would inherit.
    """
    for number in STOPPING:
        signal.signal(number, lambda *_: None)


class WorkerLost(UserError):
    """A loader worker was killed after one had been replaced already; nothing of a step is half done."""


def loader(
    steps: Steps,
    first: int,
    last: int,
    workers: int = 0,
    pin: bool = False,
    tell: Callable[[int, str], None] = lambda step, what: None,
) -> Iterator[Batch]:
    """Batches of steps first..last-1 in order, each step as `accumulate` micro batches.

    A worker that is killed is replaced once: `tell` hears the step and what happened, and what is delivered stays the
    same to the byte, for a batch is a function of its number. The second time it is a WorkerLost.
    """
    at, end = first * steps.accumulate, last * steps.accumulate
    for left in (1, 0):
        batches = started(steps, range(at, end), workers, pin)
        try:
            for batch in batches:
                yield unpacked(batch) if workers else batch
                at += 1
            return
        except Exception as error:
            if (number := killed(batches, error)) is None:
                raise
            step = at // steps.accumulate
            what = f"a loader worker was killed ({signal.strsignal(-number) or number}) before step {step}"
            if not left:
                raise WorkerLost(f"{what}, the second one; lower workers if memory ran out") from error
            tell(step, f"{what}; another one goes on there")


def started(steps: Steps, indices: Sequence[int], workers: int, pin: bool) -> Iterator[Any]:
    """A DataLoader's iterator. A worker's death is found when its batch is asked for, not in the middle of a step.

    torch's own handler of SIGCHLD raises wherever the program is, also while the optimiser is moving the weights.
    """
    child = known("SIGCHLD")
    handler = None if child is None else signal.getsignal(child)
    batches = iter(
        DataLoader(
            steps,
            batch_size=None,
            sampler=indices,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=ship if workers else None,
            pin_memory=pin,
            prefetch_factor=4 if workers else None,
            persistent_workers=False,
            worker_init_fn=outlive_stop,
            # its own: a loader that starts must not advance the process's random state, or a resume differs
            generator=torch.Generator().manual_seed(steps.seed),
        )
    )
    if child is not None and signal.getsignal(child) is not handler:
        signal.signal(child, handler or signal.SIG_DFL)
    return batches


def killed(batches: Iterator[Any], error: Exception) -> int | None:
    """The exit code of a worker of this loader that died, None where none did: then the error is another one."""
    if not isinstance(batches, _MultiProcessingDataLoaderIter) or isinstance(error, UserError):
        return None
    for worker in batches._workers:
        if isinstance(error, OSError | EOFError):  # its end of a pipe closed a moment ago
            worker.join(0.5)
        if worker.exitcode:
            return int(worker.exitcode)
    return None
