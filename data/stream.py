"""Steps -> batches, resumable without state: item `step` of the dataset is the batch of that step.

Workers of the loader fetch whole steps in turn, so the order and the bytes do not depend on how many
there are; a resume starts the sampler at the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from data.errors import UserError
from data.order import records_at
from data.schedule import Schedule
from data.source import Records
from data.types import Batch, Example


@dataclass
class Feed:
    """One task's side of the stream: its records, how an example is made of one, and how they collate.

    batch: samples a step over all ranks and micro steps.
    """

    records: Records
    example: Callable[[dict[str, Any], torch.Generator | None], Example]
    collate: Callable[[list[Example]], Batch]
    batch: int


class Steps(Dataset):
    """Map-style: `self[step * accumulate + micro]` is this rank's batch of that micro step."""

    def __init__(
        self, feeds: dict[str, Feed], schedule: Schedule, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1
    ) -> None:
        self.feeds, self.schedule, self.seed = feeds, schedule, seed
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
        examples = []
        for offset, number in enumerate(records_at(self.seed, task, len(feed.records), start, own)):
            # the sample's own randomness: a function of seed and stream position only
            rng = torch.Generator().manual_seed((self.seed * 1_000_003 + start + offset) % 2**63)
            record = feed.records[number]
            try:
                examples.append(feed.example(record, rng))
            except UserError as error:
                raise UserError(f"task {task}, record {record.get('id', number)}: {error}") from error
        return feed.collate(examples)


def loader(steps: Steps, first: int, last: int, workers: int = 0, pin: bool = False) -> Iterator[Batch]:
    """Batches of steps first..last-1 in order, each step as `accumulate` micro batches."""
    indices: Sequence[int] = range(first * steps.accumulate, last * steps.accumulate)
    return iter(
        DataLoader(
            steps,
            batch_size=None,
            sampler=indices,  # type: ignore[arg-type]
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=4 if workers else None,
            persistent_workers=False,
        )
    )
