"""What a task is: what goes in, where the question is asked, among which candidates - and nothing else.

A task is a dataclass of JSON values (so that a recipe can be saved). It learns from its training
records what it needs (`learn`), makes an `Example` of a record (`example`), and reads an answer off the
likelihood (`score`, `answer`). It never touches the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.errors import UserError, nearest
from data.pack import collate
from data.source import Record, Records, Source
from data.types import Batch, Example, Span
from tasks.candidates import CandidateSet
from tasks.metrics import Mean
from tokenizers_mod.base import Modality


@dataclass(kw_only=True)
class Task:
    """Base of every task.

    source: where its records come from; inputs: {modality: field of the record}, in sequence order.
    batch: samples a step over all processes. share: sampling ratio, normalised over the recipe's tasks.
    weight: factor of the loss (the balanced optimiser is invariant to it); omega: length of the task's
    normalised gradient there. scale: name of its logit scale; smoothing: label smoothing.
    """

    name: str
    source: Source
    inputs: dict[str, str] = field(default_factory=dict)
    batch: int = 64
    share: float = 1.0
    weight: float = 1.0
    omega: float = 1.0
    scale: str = ""
    smoothing: float = 0.0

    kind: ClassVar[str] = ""
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    symmetric: ClassVar[bool] = False
    field_of_inputs: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        self.scale = self.scale or self.kind
        self.modalities: dict[str, Modality] = {}
        self.info: dict[str, Any] = {}
        self.candidates: CandidateSet | None = None
        if self.batch < 1:
            raise UserError(f"task {self.name}: batch must be at least 1, got {self.batch}")

    # --- once, before training ---

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        """Fill modality settings that come from training data (a table's schema, a vocabulary)."""

    def candidate_set(self, records: Records) -> CandidateSet | None:
        """The shared candidates, made from training data; None when the batch's partners are the candidates."""
        return None

    def bind(self, modalities: dict[str, Modality], candidates: CandidateSet | None, info: dict[str, Any]) -> None:
        """Give the task the finished modalities, its candidates and its source's info."""
        for modality in ("summary", *self.inputs):
            if modality not in modalities:
                raise UserError(f"task {self.name}: modality {modality!r} is not in the recipe; {nearest(modality, modalities)}")
        self.modalities, self.candidates, self.info = modalities, candidates, info

    # --- a sample ---

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """A record -> input spans with the question, and the partner's spans where the task has partners."""
        raise NotImplementedError(f"{type(self).__name__} must define example")

    def question(self, labels: Tensor | None = None) -> Span:
        """The summary token, asked: label [1] (or [1, ...]) or None at inference."""
        return self.modalities["summary"].span(None).ask([0], labels)

    def input_spans(self, record: Record, rng: torch.Generator | None = None) -> list[Span]:
        """The record's input fields as spans, in the order of `inputs`; a field that is None is a missing modality."""
        spans = []
        for modality, name in self.inputs.items():
            if name not in record:
                raise UserError(f"no field {name!r}; {nearest(name, record)}")
            if record[name] is None:
                continue
            tokenizer = self.modalities[modality]
            spans.append(tokenizer.span(tokenizer.read(record[name]), rng))
        return spans

    def collate(self, examples: list[Example]) -> Batch:
        batch = collate(self.name, examples, self.name if self.candidates is not None else None, self.symmetric)
        batch.scale, batch.smoothing = self.scale, self.smoothing
        return batch

    # --- evaluation ---

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        """log_p Float[M ... K] and labels [M ...] -> metrics that merge over batches."""
        raise NotImplementedError(f"{type(self).__name__} must define score")

    def answer(self, log_p: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """The likeliest candidates of one sample in words, with their probabilities. log_p: Float[K]."""
        assert self.candidates is not None
        names = self.candidates.labels(self.modalities)
        values, index = log_p.exp().topk(min(top, len(names)))
        return [(names[i], float(p)) for p, i in zip(values.tolist(), index.tolist(), strict=True)]

    def truth(self, record: Record) -> str:
        """The right answer in words, for reports."""
        return ""

    def baseline(self, train: Records, test: Records) -> dict[str, Any]:
        """An ordinary method on the same splits: {"baseline", "baseline_name", "chance"}."""
        return {"baseline": None, "baseline_name": "none", "chance": None}


def accuracy(log_p: Tensor, labels: Tensor) -> Mean:
    """Share of answers whose likeliest candidate is the label; Float[M K], int[M] (-1 = not asked)."""
    asked = labels >= 0
    right = (log_p.argmax(-1) == labels) & asked
    return Mean(float(right.sum()), float(asked.sum()))
