"""Captioning: [summary, x, words·] among the vocabulary, each word asked before it is seen (spec 1.9).

Trained in one pass over all words (`Text.caption_span`); written word by word by `generalist.model.decode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Vocabulary
from generalist.tasks.measures.captioning import caption_metrics
from generalist.tasks.measures.metrics import Mean, accuracy, surprise


@dataclass(kw_only=True)
class Describe(Task):
    """caption: the record's field with the caption, or a list of captions of which training draws one and evaluation
    takes the first. full_stop: a caption that ends in a letter or digit gets "." (spec 5).
    max_length: tokens of the longest caption, the end among them; 0 = the text modality's.
    """

    kind: ClassVar[str] = "describe"
    metric: ClassVar[str] = "nll"
    also_called: ClassVar[dict[str, str]] = {"next word accuracy": "accuracy"}
    higher_is_better: ClassVar[bool] = False
    writes: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("caption",)
    inputs: dict[str, str] = field(default_factory=lambda: {"image": "image"})
    caption: str = "captions"
    full_stop: bool = True
    max_length: int = 0

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import describe

        return describe()

    def texts(self, records: Records) -> Iterator[str]:
        for i in range(len(records)):
            yield from self.captions(records[i])

    def candidate_set(self, records: Records) -> CandidateSet:
        return Vocabulary()

    def captions(self, record: Record) -> list[str]:
        """All captions of a record. UserError where there is none."""
        found = record[self.caption]
        found = [found] if isinstance(found, str) else list(found)
        if not found:
            raise UserError(f"field {self.caption!r} holds no caption")
        return [finished(c) if self.full_stop else c for c in found]

    def asked(self, record: Record) -> list[Span]:
        """The beginning alone, behind which the words are written."""
        return self.beginning(record)

    def beginning(self, record: Record, rng: torch.Generator | None = None) -> list[Span]:
        """What stands before the words: [summary, x]."""
        return [self.modalities["summary"].span(None), *self.input_spans(record, rng)]

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        text: Any = self.modalities["text"]
        words = text.next_span([])
        if record.get(self.caption) is not None:
            captions = self.captions(record)
            chosen = 0 if rng is None else int(torch.randint(len(captions), (1,), generator=rng))
            words = text.caption_span(text.read(captions[chosen]), self.max_length or None)
        return Example([*self.beginning(record, rng), words], record=str(record.get("id", "")))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        """Of the next word given the true words before it."""
        return {"nll": surprise(log_p, labels), "next word accuracy": accuracy(log_p, labels)}

    def compare(self, written: Sequence[str], records: Records) -> dict[str, float]:
        """BLEU-4 and CIDEr of one written caption a record against all captions of the record
        (`generalist.tasks.measures.captioning`)."""
        return caption_metrics(written, [self.captions(records[i]) for i in range(len(records))])

    def truth(self, record: Record) -> str:
        return self.captions(record)[0]


def finished(caption: str) -> str:
    """The caption with "." behind a last letter or digit."""
    caption = caption.strip()
    return caption + "." if caption and caption[-1].isalnum() else caption
