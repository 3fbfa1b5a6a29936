"""Visual question answering: [summary, x, question, SPE·, end] among the answers, shared (spec 1.9)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import IGNORE, Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Names
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean, accuracy, surprise
from generalist.tokenizers_mod.base.capabilities import Mirrors

SIDES = {"left": "right", "right": "left"}


@dataclass(kw_only=True)
class Answer(Task):
    """question, answer: the record's fields. An answer is a text, {text: soft score in 0..1} or the list
    of what several people said.

    answers: the answer set; default the `most` commonest of the training records (3129 in VQA v2). Training draws one
    answer with probability proportional to its soft score. max_length: of the question with SPE and end.
    mirror: training: probability that the picture is mirrored, left and right swapped in question and answer.
    """

    kind: ClassVar[str] = "answer"
    names_in: ClassVar[str] = "answers"
    reads: ClassVar[tuple[str, ...]] = ("question_field", "answer_field")
    inputs: dict[str, str] = field(default_factory=lambda: {"image": "image"})
    question_field: str = "question"
    answer_field: str = "answer"
    answers: list[str] | None = None
    most: int = 3129
    max_length: int = 23
    mirror: float = 0.0

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import answer

        return answer()

    def texts(self, records: Records) -> Iterator[str]:
        for i in range(len(records)):
            yield str(records[i][self.question_field])
            yield from self.scores(records[i])

    def scores(self, record: Record) -> dict[str, float]:
        """The answers of a record with their soft scores."""
        found = record[self.answer_field]
        if isinstance(found, list | tuple):
            scores = soft_scores([str(a) for a in found])
        else:
            scores = {str(a): float(s) for a, s in found.items()} if isinstance(found, dict) else {str(found): 1.0}
        if any(not 0 <= s < float("inf") for s in scores.values()):
            raise UserError(f"soft scores must be finite and not negative, got {scores}")
        return scores

    def candidate_set(self, records: Records) -> CandidateSet:
        if self.answers:
            some = [self.scores(records[i]) for i in range(0, len(records), max(1, len(records) // 200))]
            # of a few records none need be answerable; of many, the names are written another way
            if len(some) >= 20 and not any(answer in self.answers for scores in some for answer in scores):
                said, own = next(iter(some[0]), ""), self.answers[:4]
                raise UserError(f"task {self.name}: no training record is answered by any of {own}; they say {said!r}")
            return Names(list(self.answers))
        counted: Counter[str] = Counter()
        for i in range(len(records)):
            counted.update(self.scores(records[i]))
        # ties in alphabetical order, so that the set does not depend on the order of the records
        return Names([a for a, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[: self.most]])

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        text: Any = self.modalities["text"]
        question, label = str(record[self.question_field]), None
        mirrored = rng is not None and float(torch.rand(1, generator=rng)) < self.mirror
        if record.get(self.answer_field) is not None:
            label = torch.tensor([self.draw(record, rng, mirrored)])
        spans = self.mirrored_spans(record, rng) if mirrored else self.input_spans(record, rng)
        words = text.question_span(swap_sides(question) if mirrored else question, label, self.max_length)
        return Example([self.modalities["summary"].span(None), *spans, words], record=str(record.get("id", "")))

    def asked(self, record: Record) -> list[Span]:
        if "text" in self.inputs:  # the model was told of the question as an input like any other
            return super().asked(record)
        if record.get(self.question_field) is None:
            raise UserError(f"no field {self.question_field!r}; {nearest(self.question_field, record)}")
        return self.example({**record, self.answer_field: None}).inputs

    def given(self) -> dict[str, str]:
        return {"text": self.question_field, **self.inputs}

    def among(self, names: list[str]) -> Task:
        return self.asking(Names(names))

    def draw(self, record: Record, rng: torch.Generator | None, mirrored: bool = False) -> int:
        """The answer's index: drawn by soft score in training, else the best; -1 where none is in the answer set."""
        index = self.index
        scores = {swap_sides(a) if mirrored else a: s for a, s in self.scores(record).items()}
        known = [(index[a], s) for a, s in scores.items() if a in index and s > 0]
        if not known:
            return IGNORE
        if rng is None:
            return max(known, key=lambda pair: pair[1])[0]
        weights = torch.tensor([s for _, s in known])
        return known[int(torch.multinomial(weights, 1, generator=rng))][0]

    @property
    def index(self) -> dict[str, int]:
        """{answer: its index}."""
        names = self.among_kind(Names).names
        if self.__dict__.get("_names") is not names:
            self._names, self._index = names, {name: i for i, name in enumerate(names)}
        return self._index

    def mirrored_spans(self, record: Record, rng: torch.Generator | None) -> list[Any]:
        """The input spans with whatever can be mirrored mirrored."""
        spans = []
        for modality, name in self.inputs.items():
            tokenizer: Any = self.modalities[modality]
            value = tokenizer.read(record[name])
            if not isinstance(self.modalities[modality], Mirrors):
                raise UserError(f"task {self.name}: modality {modality!r} cannot be mirrored; set mirror=0")
            spans.append(tokenizer.span(tokenizer.mirror(value), rng))
        return spans

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        asked = labels >= 0
        # a question whose answer is not in the set cannot be answered and counts as wrong
        right = accuracy(log_p, labels)
        return {"accuracy": replace(right, count=float(labels.numel())), "nll": surprise(log_p[asked], labels[asked])}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        """With the soft score of the answer given, which is VQA accuracy where the answers are those of ten people."""
        columns, names = super().keep(kept), self.among_kind(Names).names
        given = [
            self.scores(kept.record(i)).get(names[k], 0.0)
            for i, k in zip(columns["record"].tolist(), columns["answer"].tolist(), strict=True)
        ]
        return columns | {"score": np.array(given)}

    def truth(self, record: Record) -> str:
        return max(self.scores(record).items(), key=lambda pair: pair[1])[0]


def soft_scores(given: list[str]) -> dict[str, float]:
    """The answers of several people -> {answer: VQA accuracy of giving it} (1505.00468, section 3).

    min(agreeing people / 3, 1), averaged over leaving out each person; one person's answer alone counts 1.
    """
    if not given:
        raise UserError("a question has no answer; leave it out")
    n = len(given)
    if n == 1:
        return {given[0]: 1.0}
    return {a: (c * min((c - 1) / 3, 1.0) + (n - c) * min(c / 3, 1.0)) / n for a, c in sorted(Counter(given).items())}


def swap_sides(text: str) -> str:
    """left <-> right, word by word: what a mirrored picture's text says."""
    return re.sub(r"\b(left|right)\b", _other_side, text, flags=re.IGNORECASE)


def _other_side(found: re.Match[str]) -> str:
    other = SIDES[found[0].lower()]
    return other.capitalize() if found[0][0].isupper() else other
