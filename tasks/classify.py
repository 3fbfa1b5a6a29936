"""Classification: [summary·, x] among the class names as text, shared (Uni-Perceiver spec 1.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.errors import UserError
from data.source import Record, Records
from data.types import Batch, Example
from tasks import baselines
from tasks.base import Task, accuracy, learn_tables, surprise
from tasks.candidates import CandidateSet, Names
from tasks.metrics import Mean
from tasks.mixup import Mixed, ask_mix, mix
from tokenizers_mod.base import Modality


@dataclass(kw_only=True)
class Classify(Task):
    """label: the record's field with the class index (or name). classes: names; default those of the source.

    synonyms: {class name: other names for it}, of which training draws one for each batch; default the source's own.

    mixup, cutmix: alpha of their Beta distributions in training, 0 = off (`tasks.mixup`); both: each half of the time.
    mix_probability: share of the training samples that are mixed at all.
    """

    kind: ClassVar[str] = "classify"
    label: str = "label"
    classes: list[str] | None = None
    synonyms: dict[str, list[str]] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn_tables(self, modalities, records)

    def texts(self, records: Records) -> Iterator[str]:
        yield from self.classes or records.info.get("classes", [])
        for others in self.other_names(records).values():
            yield from others

    def candidate_set(self, records: Records) -> CandidateSet:
        names = self.classes or records.info.get("classes")
        if not names:
            raise UserError(
                f"task {self.name}: the source knows no class names; give classes=[...] (--classes NAME ...)"
            )
        return Names([str(n) for n in names], synonyms=self.other_names(records))

    def other_names(self, records: Records) -> dict[str, list[str]]:
        """{class name: its synonyms}."""
        found = records.info.get("synonyms", {}) if self.synonyms is None else self.synonyms
        return {str(name): [str(other) for other in others] for name, others in found.items()}

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        labels = None if record.get(self.label) is None else torch.tensor([self.index(record)])
        example = Example([self.question(labels), *self.input_spans(record, rng)], record=str(record.get("id", "")))
        if rng is None or labels is None:
            return example
        return ask_mix(example, self.mixup, self.cutmix, self.mix_probability, rng)

    def collate(self, examples: list[Example]) -> Batch:
        if not any(isinstance(e, Mixed) for e in examples):
            return super().collate(examples)
        batch = super().collate(mix(examples, len(self.candidates.names)))  # type: ignore[union-attr]
        batch.count = batch.inputs.sequences  # one answer a sample, though its label is a row of shares
        return batch

    def index(self, record: Record) -> int:
        """The class index of a record, from an index or a name."""
        label = record[self.label]
        names = self.candidates.names  # type: ignore[union-attr]
        if isinstance(label, str):
            if label not in names:
                raise UserError(f"unknown class {label!r}; the classes are {names[:8]}")
            return names.index(label)
        if not 0 <= label < len(names) or int(label) != label:  # NaN fails the first
            raise UserError(f"class index {label} is not one of 0..{len(names) - 1}")
        return int(label)

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        return {"accuracy": accuracy(log_p, labels), "nll": surprise(log_p, labels)}

    def truth(self, record: Record) -> str:
        return self.candidates.names[self.index(record)]  # type: ignore[union-attr]

    def baseline(self, train: Records, val: Records, test: Records) -> dict[str, Any]:
        return baselines.classification(self.inputs, self.label, train, val, test, self.name)
