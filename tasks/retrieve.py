"""Retrieval: [summary·, x] against [summary·, y], the batch's partners, both directions (spec 1.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from zlib import crc32

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Example
from generalist.data.stream.source import Record, Records
from generalist.tasks import baselines, lines
from generalist.tasks.base import Task
from generalist.tasks.metrics import Mean, mean_of


@dataclass(kw_only=True)
class Retrieve(Task):
    """partners: {modality: field} of the other side, in sequence order.

    Equal partners in a batch (two pictures with one caption) are one answer: the target is spread over them.
    """

    kind: ClassVar[str] = "retrieve"
    metric: ClassVar[str] = "recall@1"
    symmetric: ClassVar[bool] = True
    line_kind: ClassVar[str] = "gallery"
    partners: dict[str, str] = field(default_factory=lambda: {"text": "text"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 2:
            raise UserError(f"task {self.name}: batch {self.batch} leaves nothing to choose among; give at least 2")

    def answer_fields(self) -> tuple[str, ...]:
        """Both sides: a record of which one is missing has no partner. Of several inputs any may be missing."""
        return (*self.partners.values(), *(self.inputs.values() if len(self.inputs) == 1 else ()))

    def texts(self, records: Records) -> Iterator[str]:
        for name in self.partners.values():
            yield from (records[i][name] for i in range(len(records)) if isinstance(records[i][name], str))

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        partner = [self.question()]
        for modality, name in self.partners.items():
            tokenizer = self.modalities[modality]
            partner.append(tokenizer.span(tokenizer.read(record[name]), rng))
        inputs = [self.question(), *self.input_spans(record, rng)]
        return Example(inputs, partner, str(record.get("id", "")), crc32(self.truth(record).encode()))

    def answers_in(self) -> Iterator[str]:
        return iter(self.partners)

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        """log_p: Float[M K] over the gallery; labels: the right members, Bool[M K], of which the first counts."""
        own = log_p.masked_fill(~labels, float("-inf")).amax(-1, keepdim=True)
        rank = (~(log_p <= own) & ~labels).sum(-1)  # 0 = first; what is no number is never found
        out = {f"recall@{k}": mean_of(rank < k) for k in (1, 5, 10)}
        return out | {"median rank": Mean(float(rank.median() + 1), 1.0)}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        return {"record": kept.owner.numpy(), **lines.gallery(kept.log_p, kept.labels, kept.direction)}

    def correct(self, log_p: Tensor, label: Tensor) -> bool | None:
        return bool(label[log_p.argmax(-1)])

    def truth(self, record: Record) -> str:
        return " ".join(str(record[name]) for name in self.partners.values())

    def baseline(self, train: Records, val: Records | None, test: Records) -> dict[str, Any]:
        return baselines.retrieval(self.inputs, self.partners, train, val, test, self.name, self.modalities)
