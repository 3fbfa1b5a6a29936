"""Masked modelling of any modality with numbers in its tokens: [summary, x·] among number tokens.

Source: masked autoencoders (2111.06377) and BERT's rule (1810.04805), as a likelihood over a candidate set instead of
a squared error (`spec/numbers.md`). A hidden token shows zeros and is asked for the mean of its own values, coarse as
it is: the answer is a distribution over number tokens, so nothing but the law is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.errors import UserError
from data.source import Record, Records
from data.types import Example, Span
from tasks import lines
from tasks.base import Task
from tasks.candidates import CandidateSet, Numbers
from tasks.metrics import Mean, mean_of
from tokenizers_mod import bins


@dataclass(kw_only=True)
class Restore(Task):
    """inputs: one modality. key: which of its tensors [n, ...] is hidden. rate: share of tokens hidden, one at least.

    Evaluation hides the same tokens each time (seeded by the record's name). bins, sigma: of the candidates.
    """

    kind: ClassVar[str] = "restore"
    metric: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    line_kind: ClassVar[str] = "numbers"
    key: str = "patch"
    rate: float = 0.4
    bins: int = 64
    sigma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.inputs) != 1:
            raise UserError(f"task {self.name}: restore hides one modality, inputs has {len(self.inputs)}")
        if not 0 < self.rate < 1:
            raise UserError(f"task {self.name}: rate={self.rate}: it is a share of the tokens, 0 < rate < 1")

    def _span(self, record: Record, rng: torch.Generator | None) -> Span:
        spans = self.input_spans(record, rng)
        if not spans:
            raise UserError(f"field {next(iter(self.inputs.values()))!r} is missing; there is nothing to restore")
        span = spans[0]
        value = span.data.get(self.key)
        if value is None or len(value) != span.length or not value.is_floating_point():
            raise UserError(f"{span.modality} has no numbers {self.key!r} in each token; it has {list(span.data)}")
        return span

    def _values(self, span: Span) -> Tensor:
        """What a token is asked for: the mean of its numbers, Float[n]."""
        return span.data[self.key].flatten(1).mean(1)

    def candidate_set(self, records: Records) -> CandidateSet:
        values = []
        for i in range(0, len(records), max(1, len(records) // 500)):
            span = self._span(records[i], None)
            seen = slice(None) if span.mask is None else span.mask
            values.append(self._values(span)[seen])
        z = torch.cat(values).double()
        mean, std = float(z.mean()), float(z.std())
        if not std > 0:
            raise UserError(f"task {self.name}: all tokens of the training data are alike; there is nothing to restore")
        edges = bins.quantile_edges((z - mean) / std, self.bins)
        return Numbers(edges=[float(e) for e in edges], sigma=self.sigma, mean=mean, std=std)

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """The summary and the modality's tokens, the hidden ones zeroed and asked; labels Float[m], standardised."""
        span = self._span(record, rng)
        # without a training generator the record's own name seeds the choice, so every evaluation asks the same
        rng = rng or torch.Generator().manual_seed(sum(str(record.get("id", span.length)).encode()))
        real = torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask
        draw = torch.rand(span.length, generator=rng).masked_fill(~real, 2.0)
        count = max(1, round(float(real.sum()) * self.rate))
        hidden = draw.argsort()[:count].sort().values
        numbers: Any = self.candidates
        labels = (self._values(span)[hidden] - numbers.mean) / numbers.std
        shown = span.data[self.key].clone()
        shown[hidden] = 0
        span = replace(span, data=span.data | {self.key: shown}).ask(hidden, labels)
        return Example([self.modalities["summary"].span(None), span], record=str(record.get("id", "")))

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        """mse: of the expectation, 1 = guessing the mean; mae: of the median; both in training deviations."""
        numbers: Any = self.candidates
        return {
            "mse": mean_of((numbers.expectation(log_p) - labels) ** 2),
            "mae": mean_of((numbers.quantile(log_p, 0.5) - labels).abs()),
        }

    def keep(self, kept: lines.Kept) -> lines.Columns:
        numbers: Any = self.candidates
        return {"record": kept.owner.numpy(), **lines.numbers(kept.log_p, kept.labels, numbers)}

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        """The median in the token's own unit."""
        numbers: Any = self.candidates
        return [(f"{float(numbers.quantile(log_p, 0.5)) * numbers.std + numbers.mean:.3g}", 0.5)]

    def correct(self, log_p: Tensor, label: Tensor) -> bool | None:
        return None

    def truth(self, record: Record) -> str:
        return "the hidden tokens"

    def baseline(self, train: Records, val: Records, test: Records) -> dict[str, Any]:
        """The mean of a sample's visible tokens, for each of its hidden ones; chance: the training mean."""
        numbers: Any = self.candidates
        wrong, guess, count = 0.0, 0.0, 0
        for i in range(len(test)):
            asked = self.example(test[i]).inputs[1]
            whole = (self._values(self._span(test[i], None)) - numbers.mean) / numbers.std
            visible = torch.ones(asked.length, dtype=torch.bool) if asked.mask is None else asked.mask.clone()
            assert asked.asked is not None and asked.labels is not None
            visible[asked.asked] = False
            middle = whole[visible].mean() if bool(visible.any()) else torch.zeros(())
            wrong += float(((asked.labels - middle) ** 2).sum())
            guess += float((asked.labels**2).sum())
            count += len(asked.labels)
        return {"value": wrong / count, "chance": guess / count, "baseline": "mean of the visible tokens"}
