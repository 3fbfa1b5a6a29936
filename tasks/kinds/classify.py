"""Classification: [summary·, x] among the class names as text, shared (Uni-Perceiver spec 1.9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import Mismatch, UserError
from generalist.data.base.labels import Labels, is_empty, name_of, ordered
from generalist.data.batch.types import Batch, Example
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.learn import learn_tables
from generalist.tasks.base.mixup import Mixed, ask_mix, mix
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import TEMPLATES, CandidateSet, Names
from generalist.tasks.measures.metrics import Mean, accuracy, surprise
from generalist.tokenizers_mod.base.base import Modality


@dataclass(kw_only=True)
class Classify(Task):
    """label: the record's field with the class index (or name). classes: names; default those of the source.

    synonyms: {class name: other names for it}, of which training draws one for each batch; default the source's own.
    templates: words around the names ("a photo of {}"), one of which two in five training batches wear; default
    the usual ones of zero-shot clients (`tasks.candidates.names.TEMPLATES`), [] for none. Evaluation asks for
    bare names.

    mixup, cutmix: alpha of their Beta distributions in training, 0 = off (`tasks.base.mixup`); both: each half
    of the time. mix_probability: share of the training samples that are mixed at all.
    """

    kind: ClassVar[str] = "classify"
    asks_once: ClassVar[bool] = True
    names_in: ClassVar[str] = "classes"
    reads: ClassVar[tuple[str, ...]] = ("label",)
    label: str = "label"
    classes: list[str] | None = None
    synonyms: dict[str, list[str]] | None = None
    templates: list[str] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import classify

        return classify()

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn_tables(self, modalities, records)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._labels: tuple[tuple[int, int], Labels] | None = None

    def answer_fields(self) -> tuple[str, ...]:
        return (self.label,)

    def texts(self, records: Records) -> Iterator[str]:
        yield from self.class_names(records)
        for others in self.other_names(records).values():
            yield from others

    def notes(self, records: Records) -> list[str]:
        assert isinstance(self.candidates, Names)
        found, names, templates = [], self.candidates.names, self.candidates.templates
        column = records.column(self.label) if self.classes else None
        if column is not None:
            had = set()
            for value in {v for v in column if not is_empty(v) and not isinstance(v, list | dict)}:
                with suppress(Mismatch):  # a label that is no class is named where its sample is read
                    had.add(names[self.labels.place(value)])
            never = [name for name in names if name not in had]
            if never:
                shown = ", ".join(map(repr, never[:6])) + (" ..." if len(never) > 6 else "")
                found.append(f"{len(never)} of {len(names)} given classes have no training row: {shown}")
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(" ".join(name.casefold().split()), []).append(name)
        if double := [", ".join(map(repr, some)) for some in alike.values() if len(some) > 1]:
            found.append(f"classes that differ in case or spaces only: {'; '.join(double[:4])}; are they one?")
        labels = records.column(self.label) or ()
        if self.labels.note and any(not isinstance(value, str) for value in labels if not is_empty(value)):
            found.append(self.labels.note)
        fit = len(self.candidates.templates_of(self.modalities))
        if fit < len(templates):
            found.append(
                f"names are taught in {fit} of {len(templates)} templates; text.max_length cuts the others off"
            )
        return found

    def wordings(self) -> Iterator[str]:
        yield from (template.replace("{}", "") for template in self.usual_templates)

    @property
    def usual_templates(self) -> list[str]:
        """The templates that training draws from."""
        return list(TEMPLATES if self.templates is None else self.templates)

    def candidate_set(self, records: Records) -> CandidateSet:
        names = self.class_names(records)
        if not names:
            raise UserError(
                f"task {self.name}: the source knows no class names; give classes=[...] (--classes NAME ...)"
            )
        return Names(names, synonyms=self.other_names(records), templates=self.usual_templates)

    def asking_in(self, candidates: CandidateSet, template: str) -> Self:
        asked = super().asking_in(candidates, template)
        asked.classes = candidates.offered()  # what the labels are called, which know no template
        return asked

    def class_names(self, records: Records) -> list[str]:
        """Those given, else the source's, else what the labels of the records say."""
        if names := self.classes or records.info.get("classes"):
            return [str(name) for name in names]
        found = [value for value in records.column(self.label) or () if not is_empty(value)]
        if any(isinstance(value, float) and not value.is_integer() for value in found):
            raise UserError(
                f"task {self.name}: {self.label!r} holds numbers such as {found[0]!r}; that asks for a Regress"
            )
        return ordered({name_of(value) for value in found if not isinstance(value, list | tuple | dict)})

    @property
    def labels(self) -> Labels:
        """How the labels of this task's records are read; made once for a candidate set and a source."""
        made_for = (id(self.candidates), id(self.info))
        if self._labels is None or self._labels[0] != made_for:
            assert isinstance(self.candidates, Names)
            names = self.classes if self.classes else self.candidates.names
            self._labels = made_for, Labels(names, self.info.get("classes") or ())
        return self._labels[1]

    def other_names(self, records: Records) -> dict[str, list[str]]:
        """{class name: its synonyms}."""
        found = records.info.get("synonyms", {}) if self.synonyms is None else self.synonyms
        return {str(name): [str(other) for other in others] for name, others in found.items()}

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        known = self.has_answer(record, self.label, rng is not None)
        labels = torch.tensor([self.index(record)]) if known else None
        example = Example([self.question(labels), *self.input_spans(record, rng)], record=str(record.get("id", "")))
        if rng is None or labels is None:
            return example
        return ask_mix(example, self.mixup, self.cutmix, self.mix_probability, rng)

    def collate(self, examples: list[Example]) -> Batch:
        if not any(isinstance(e, Mixed) for e in examples):
            return super().collate(examples)
        batch = super().collate(mix(examples, len(self.among_kind(Names).names)))
        batch.count = batch.inputs.sequences  # one answer a sample, though its label is a row of shares
        return batch

    def index(self, record: Record) -> int:
        """The place of a record's class among the candidates (`generalist.data.base.labels`)."""
        return self.labels.place(record[self.label])

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        return {"accuracy": accuracy(log_p, labels), "nll": surprise(log_p, labels)}

    def truth(self, record: Record) -> str:
        return self.among_kind(Names).names[self.index(record)]
