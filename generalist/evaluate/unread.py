"""A split's records as samples; those that cannot be read are counted, named and bounded by the rule of training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import Mismatch, UserError, nearest
from generalist.data.base.labels import is_empty
from generalist.data.batch.types import Batch, Example
from generalist.data.stream.source import Records
from generalist.recipe.specs import FaultSpec
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.views import seen_as, views_of
from generalist.train.faults import too_many

FILE = "bad_samples.{split}.jsonl"


@dataclass
class Unread:
    """What was left out of one split. rate: share of its samples that may be, beyond the first few.

    mismatches: a class that is no candidate counts as well; False: it is a mistake in what was asked for.
    """

    split: str = "test"
    mismatches: bool = True
    rate: float = field(default_factory=lambda: FaultSpec().bad_rate)
    lines: list[dict[str, Any]] = field(default_factory=list)
    seen: int = 0
    first: str = ""

    def takes(self, error: UserError) -> bool:
        """Whether a record with this error may be left out."""
        return self.mismatches or not isinstance(error.__cause__, Mismatch)

    def add(self, error: UserError) -> None:
        """One more, whose error says task and record."""
        self.first = self.first or str(error)
        task, _, rest = str(error).removeprefix("task ").partition(", record ")
        record, _, reason = rest.partition(": ")
        self.lines.append({"split": self.split, "task": task, "record": record, "error": reason})

    def check(self, read: int, whole: bool = True) -> None:
        """UserError when too many of those seen are broken, or none of all could be read. whole: no more will come."""
        if self.lines and not read:
            raise UserError(f"no sample of the {self.split} split can be read; {self.first}")
        if too_many(len(self.lines), self.seen, self.rate, whole):
            raise UserError(
                f"{len(self.lines)} of {self.seen} samples of the {self.split} split cannot be decoded, more than "
                f"faults.bad_rate={self.rate}; {self.first}"
            )

    def write(self, out: Path) -> str:
        """Lists them in the run's folder; what to say of them in a line, "" where there are none."""
        if not self.lines:
            return ""
        file = out / FILE.format(split=self.split)
        with file.open("a", encoding="utf-8") as listed:
            for line in self.lines:
                listed.write(json.dumps(line, ensure_ascii=False) + "\n")
        return f"{self.said} ({file.name})"

    @property
    def said(self) -> str:
        """Count and the first one, in a line; "" where all were read."""
        if not self.lines:
            return ""
        return f"{len(self.lines)} of {self.seen} {self.split} samples cannot be read; {self.first}"


def batches(task: Task, records: Records, size: int = 256) -> Iterator[Batch]:
    """The records in order, without augmentation, looked at once; UserError at one that cannot be read."""
    for start in range(0, len(records), size):
        stop = min(start + size, len(records))
        yield task.collate([e for i in range(start, stop) for e in examples_of(task, records, i, [None])])


def viewed(
    task: Task, records: Records, size: int = 256, unread: Unread | None = None
) -> Iterator[tuple[list[int], list[Batch]]]:
    """The records in order by number, without augmentation, every view of them as a batch of its own.

    unread: takes what cannot be read, which is then left out; without it a UserError names the record.
    """
    count = views_of(task.modalities[m] for m in task.inputs)
    looks: list[int | None] = [None] if count == 1 else list(range(count))
    at_once = max(1, size // count)
    for start in range(0, len(records), at_once):
        numbers, found = [], []
        for i in range(start, min(start + at_once, len(records))):
            try:
                found.append(examples_of(task, records, i, looks))
                numbers.append(i)
            except UserError as error:
                if unread is None or not unread.takes(error):
                    raise
                unread.add(error)
        if unread is not None:
            unread.seen += min(at_once, len(records) - start)
        if found:
            yield numbers, [task.collate(list(view)) for view in zip(*found, strict=True)]


def examples_of(task: Task, records: Records, number: int, views: Sequence[int | None]) -> list[Example]:
    """One record as an example a view (None: the ordinary one). UserError with the record's name where it is broken."""
    name: Any = number
    try:
        record = records[number]
        name = record.get("id", number)
        if lacking := [n for n in task.answer_fields() if is_empty(record.get(n))]:
            hint = "the field is empty" if lacking[0] in record else nearest(lacking[0], record)
            raise Mismatch(f"no field {lacking[0]!r}; {hint}")
        out = []
        for view in views:
            with nullcontext() if view is None else seen_as(task.modalities.values(), view):
                out.append(task.example(record))
        return out
    except UserError as error:
        raise UserError(f"task {task.name}, record {name}: {error}") from error


def readable(task: Task, records: Records, unread: Unread) -> Records:
    """The records that can be read as samples of the task; `unread` takes the others, of which it allows some."""
    numbers = []
    for number in range(len(records)):
        unread.seen += 1
        try:
            examples_of(task, records, number, [None])
            numbers.append(number)
        except UserError as error:
            if not unread.takes(error):
                raise
            unread.add(error)
    return records if len(numbers) == len(records) else records.only(numbers)
