"""Masked modelling of text: [summary, text·] among the vocabulary, shared (spec 1.9, whole-word masking)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.source import Record, Records
from data.types import Example
from tasks import baselines
from tasks.base import Task, accuracy
from tasks.candidates import CandidateSet, Vocabulary
from tasks.metrics import Mean, mean_of
from tokenizers_mod.base import Modality


@dataclass(kw_only=True)
class Fill(Task):
    """rate: share of words hidden. Evaluation hides the same words each time (seeded by the record's place)."""

    kind: ClassVar[str] = "fill"
    inputs: dict[str, str] = field(default_factory=lambda: {"text": "text"})
    rate: float = 0.15

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn = getattr(modalities["text"], "learn", None)
        if learn is not None:
            learn([records[i][self.inputs["text"]] for i in range(len(records))])

    def candidate_set(self, records: Records) -> CandidateSet:
        return Vocabulary()

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        text = self.modalities["text"]
        value = text.read(record[self.inputs["text"]])
        # without a training generator the record's own name seeds the mask, so every evaluation hides the same words
        rng = rng or torch.Generator().manual_seed(sum(str(record.get("id", value)).encode()))
        span = text.masked(value, rng, self.rate)  # type: ignore[attr-defined]
        return Example([self.modalities["summary"].span(None), span], record=str(record.get("id", "")))

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        nll = -log_p.gather(-1, labels.unsqueeze(-1))
        return {"accuracy": accuracy(log_p, labels), "nll": mean_of(nll)}

    def truth(self, record: Record) -> str:
        return str(record[self.inputs["text"]])

    def baseline(self, train: Records, test: Records) -> dict[str, Any]:
        text = self.modalities["text"]
        sequences = [text.ids(text.read(train[i][self.inputs["text"]])) for i in range(len(train))]  # type: ignore[attr-defined]
        masked = [self.example(test[i]).inputs[1] for i in range(len(test))]
        return baselines.masked_words(sequences, masked, text.vocabulary)  # type: ignore[attr-defined]
