"""Retrieval: [summary·, x] against [summary·, y], the batch's partners, both directions (spec 1.9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, ClassVar, Self
from zlib import crc32

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean, mean_of

SAME = "all right partners"  # field of a record that was told apart from others of the same input


@dataclass(kw_only=True)
class Retrieve(Task):
    """partners: {modality: field} of the other side, in sequence order.

    Equal partners in a batch (two pictures with one caption) are one answer: the target is spread over them. A field of
    several texts (a picture's captions) gives a training sample each; in evaluation any of them is right.
    """

    kind: ClassVar[str] = "retrieve"
    metric: ClassVar[str] = "recall@1"
    symmetric: ClassVar[bool] = True
    line_kind: ClassVar[str] = "gallery"
    partners: dict[str, str] = field(default_factory=lambda: {"text": "text"})

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import retrieve

        return retrieve()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 2:
            raise UserError(f"task {self.name}: batch {self.batch} leaves nothing to choose among; give at least 2")

    def answer_fields(self) -> tuple[str, ...]:
        """Both sides: a record of which one is missing has no partner. Of several inputs any may be missing."""
        return (*self.partners.values(), *(self.inputs.values() if len(self.inputs) == 1 else ()))

    def texts(self, records: Records) -> Iterator[str]:
        for i in range(len(records)):
            record = records[i]
            for name in self.partners.values():
                yield from (text for text in several(record[name]) or [record[name]] if isinstance(text, str))

    def open(self, split: str) -> Records:
        records = super().open(split)
        if split != "train" or records.order is not None:  # what is read in order draws one of them
            return records
        rows = Each(records, self)
        return records if rows.single else replace(records, rows=rows)

    def versions(self, record: Record) -> list[Record]:
        """The record with each of its right partners, one where no field holds several."""
        lists = {name: found for name in self.partners.values() if (found := several(record.get(name)))}
        if not lists:
            return [record]
        whole = {SAME: record.get(SAME, self.truth(record))}
        return [{**record, **dict(zip(lists, one, strict=True)), **whole} for one in product(*lists.values())]

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        versions = self.versions(record)
        if rng is not None and len(versions) > 1:
            versions = [versions[int(torch.randint(len(versions), (1,), generator=rng))]]
        first, *others = (self.partner(version, rng) for version in versions)
        inputs = [self.question(), *self.input_spans(record, rng)]
        key = crc32(str(record.get(SAME, self.truth(record))).encode())
        return Example(inputs, first, str(record.get("id", "")), key, others)

    def partner(self, record: Record, rng: torch.Generator | None) -> list[Span]:
        """[summary·, y]."""
        spans = [self.question()]
        for modality, name in self.partners.items():
            tokenizer = self.modalities[modality]
            spans.append(tokenizer.span(tokenizer.read(record[name]), rng))
        return spans

    def of(self, record: Record) -> Self:
        task = super().of(record)
        task.partners = {modality: name if name in record else modality for modality, name in self.partners.items()}
        return task

    def take_partners(self, partners: dict[str, str]) -> None:
        self.partners = dict(partners)

    def other_side(self) -> dict[str, str]:
        return self.partners

    def answers_in(self) -> Iterator[str]:
        return iter(self.partners)

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        """log_p: Float[M K] over the gallery; labels: the right members, Bool[M K], of which the first counts."""
        rank = lines.rank_of_best(log_p, labels)
        out = {f"recall@{k}": mean_of(rank < k) for k in (1, 5, 10)}
        return out | {"median rank": Mean(float(rank.median() + 1), 1.0)}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        return {"record": kept.owner.numpy(), **lines.gallery(kept.log_p, kept.labels, kept.direction)}

    def correct(self, log_p: Tensor, label: Tensor) -> bool | None:
        return bool(label[log_p.argmax(-1)])

    def truth(self, record: Record) -> str:
        values = (record[name] for name in self.partners.values())
        return " ".join(" | ".join(several(value) or [str(value)]) for value in values)

    def truths(self, record: Record) -> list[str]:
        return [" ".join(str(one[name]) for name in self.partners.values()) for one in self.versions(record)]


def several(value: Any) -> list[str]:
    """The texts of a field that holds a list of them; [] for any other. UserError for an empty list."""
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return []
    if not value:
        raise UserError("a field of partners holds an empty list; leave the record out")
    return list(value)


class Each(Sequence):
    """Every record once for each of its right partners; one that cannot be read stands once, for whoever draws it."""

    def __init__(self, records: Records, task: Retrieve) -> None:
        self.records, self.task = records, task
        columns = {name: records.column(name) for name in task.partners.values()}
        known = None not in columns.values()
        self.places: list[tuple[int, int]] = []
        for i in range(len(records)):
            record = {name: values[i] for name, values in columns.items() if values} if known else None
            self.places += [(i, j) for j in range(self._count(i, record))]

    def _count(self, number: int, record: Record | None) -> int:
        try:
            return len(self.task.versions(self.records[number] if record is None else record))
        except UserError:
            return 1

    @property
    def single(self) -> bool:
        """Whether no record has several."""
        return len(self.places) == len(self.records)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: Any) -> Any:
        record, version = self.places[number]
        return self.task.versions(self.records[record])[version]
