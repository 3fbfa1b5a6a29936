"""A modality, a task and a data source of one's own: melodies, and the words that describe them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Names
from generalist.tasks.measures.metrics import Mean, mean_of
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples


@dataclass
class Melody(Modality):
    """Notes as MIDI numbers 0..127, one token a note. longest: rows of the position table."""

    name = "melody"
    raw = "a list of MIDI numbers"
    count = "notes"
    axes = 1

    longest: int = 32

    def read(self, raw: Any) -> Tensor:
        """What a person has in hand -> a checked value: Int[n]."""
        notes = torch.as_tensor(raw)
        if notes.ndim != 1 or not 0 < len(notes) <= self.longest:
            raise UserError(f"melody: shape {tuple(notes.shape)}; expected 1 to {self.longest} notes")
        if notes.is_floating_point() or notes.min() < 0 or notes.max() > 127:
            raise UserError("melody: notes are whole numbers from 0 to 127")
        return notes.long()

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """A checked value -> n tokens. In training (`rng` is given) it is played up to 2 semitones higher or lower."""
        if rng is not None:
            value = (value + torch.randint(-2, 3, (1,), generator=rng)).clamp(0, 127)
        data = {"note": value, "place": torch.arange(len(value))}
        return Span(self.name, data, len(value), grid=(len(value),))

    def build(self, width: int) -> nn.Module:
        """The half that runs on the device."""
        return MelodyTokens(self.longest, width)

    @classmethod
    def examples(cls) -> Examples:
        """Settings, what it reads, and what it refuses with which words: tried by `generalist check modality`."""
        bad = [([], "1 to 8 notes"), ([60] * 9, "1 to 8 notes"), ([60, 128], "0 to 127"), ([60.5], "whole numbers")]
        return Examples({"longest": 8}, [[60, 62, 64], [0, 127], list(range(70, 78))], bad)

    def from_command_line(self, word: str) -> list[int]:
        """What `generalist predict --input melody=FILE` hands to `read`."""
        return [int(number) for number in Path(super().from_command_line(word)).read_text().split()]


class MelodyTokens(nn.Module):
    """Note[pitch] + Place[i]: {"note": Int[N], "place": Int[N]} -> Float[N, width]."""

    def __init__(self, longest: int, width: int) -> None:
        super().__init__()
        self.note = nn.Embedding(128, width)
        self.place = nn.Embedding(longest, width)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return self.note(data["note"]) + self.place(data["place"])


@dataclass(kw_only=True)
class Tag(Task):
    """Several names may be right: [summary·, x] among the tags, the label spread evenly over the right ones."""

    kind = "tag"
    metric = "precision@1"
    tags: list[str]

    def texts(self, records: Records) -> Iterator[str]:
        yield from self.tags  # what a text tokenizer may learn its sub-words from

    @classmethod
    def examples(cls) -> TaskExamples:
        """Settings, records, and what is refused: tried by `generalist check task`."""
        settings = {"inputs": {"melody": "notes"}, "tags": ["rising", "falling", "high", "low"]}
        bad = [({"id": "far", "notes": [60, 128], "tags": ["high"]}, "0 to 127")]
        return TaskExamples(settings, Melodies().open("train")[:8], bad, modalities={"melody": Melody(longest=8)})

    def candidate_set(self, records: Records) -> CandidateSet:
        return Names(self.tags)

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        right = torch.tensor([[float(tag in record["tags"]) for tag in self.tags]])
        return Example([self.question(right / right.sum()), *self.input_spans(record, rng)], record=record["id"])

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        """log_p and labels: Float[M K]. Is the likeliest tag one of the right ones?"""
        return {"precision@1": mean_of(labels.gather(-1, log_p.argmax(-1, keepdim=True)) > 0)}

    def truth(self, record: Record) -> str:
        return ", ".join(record["tags"])


@dataclass
class Melodies:
    """SYNTHETIC melodies of 8 notes that rise or fall, high or low. A source is a dataclass with `open`."""

    seed: int = 0

    def open(self, split: str) -> Records:
        rng = np.random.default_rng([self.seed, ("train", "val", "test").index(split)])
        rows = []
        for i in range(300):
            up, high = rng.random(2) < 0.5
            notes = (72 if high else 48) + np.cumsum(rng.integers(0, 3, 8)) * (1 if up else -1)
            tags = ["rising" if up else "falling", "high" if high else "low"]
            rows.append({"id": f"melodies/{split}/{i}", "notes": notes.tolist(), "tags": tags})
        return Records(rows, {"synthetic": True, "about": "SYNTHETIC melodies"})
