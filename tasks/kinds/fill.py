"""Masked modelling of text: [summary, text·] among the vocabulary, shared (spec 1.9, whole-word masking)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.batch.types import Example
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Vocabulary
from generalist.tasks.measures.metrics import Mean, accuracy, surprise


@dataclass(kw_only=True)
class Fill(Task):
    """rate: share of words hidden. Evaluation hides the same words each time (seeded by the record's place)."""

    kind: ClassVar[str] = "fill"
    inputs: dict[str, str] = field(default_factory=lambda: {"text": "text"})
    rate: float = 0.15

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import fill

        return fill()

    def texts(self, records: Records) -> Iterator[str]:
        for i in range(len(records)):
            yield records[i][self.inputs["text"]]

    def candidate_set(self, records: Records) -> CandidateSet:
        return Vocabulary()

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        text: Any = self.modalities["text"]
        value = text.read(self.value(record, self.inputs["text"]))
        # without a training generator the record's own name seeds the mask, so every evaluation hides the same words
        rng = rng or torch.Generator().manual_seed(sum(str(record.get("id", value)).encode()))
        span = text.masked(value, rng, self.rate)
        return Example([self.modalities["summary"].span(None), span], record=str(record.get("id", "")))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        return {"accuracy": accuracy(log_p, labels), "nll": surprise(log_p, labels)}

    def show(self, record: Record, log_p: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
        """The text with its hidden words, and the first hidden piece asked."""
        text: Any = self.modalities["text"]
        shown = text.decode(self.example(record).inputs[1].data["ids"], specials=True)
        shown = shown.replace("<|endoftext|>", "").replace("<|spe|>", " ___ ")
        return {
            "input": {"kind": "text", "text": " ".join(shown.split())},
            "truth": names[int(labels[0])],
            "answers": [[a, p] for a, p in self.answer(log_p[0], names)],
            "correct": self.correct(log_p[0], labels[0]),
        }

    def truth(self, record: Record) -> str:
        return str(record[self.inputs["text"]])
