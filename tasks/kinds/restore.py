"""Masked modelling of any modality with numbers in its tokens: [summary, x·] among number tokens.

Source: masked autoencoders (2111.06377) and BERT's rule (1810.04805), as a likelihood over a candidate set instead of
a squared error (`spec/numbers.md`). `Restore` asks a hidden token for the mean of its own values, coarse as it is: the
answer is a distribution over number tokens. `RestoreCodes` asks which token of a codebook it is (BEiT, 2106.08254) and
so serves categories too: nodes of a graph, cells of a table. Either way nothing but the law is needed.

    Restore(name="heart", source=..., inputs={"series": "signal"})
    RestoreCodes(name="scenes", source=..., inputs={"image": "image"}, codes=128)

Words have `Fill`, whose codebook is the vocabulary. Where tokens overlap, as an audio stride below its patch makes
them, a hidden token is partly seen in its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.learn import learn_tables
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.codebook import Codes, learn_codes
from generalist.tasks.candidates.names import CandidateSet, Numbers
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean, accuracy, mean_of, surprise
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers import bins


@dataclass(kw_only=True)
class Hiding(Task):
    """Base of masked modelling. inputs: one modality. rate: share of its tokens that is hidden, one at least.

    Evaluation hides the same tokens each time (seeded by the record's name).
    """

    rate: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.inputs) != 1:
            raise UserError(f"task {self.name}: restore hides one modality, inputs has {len(self.inputs)}")
        if not 0 < self.rate < 1:
            raise UserError(f"task {self.name}: rate={self.rate}: it is a share of the tokens, 0 < rate < 1")

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn_tables(self, modalities, records)

    def whole(self, record: Record, rng: torch.Generator | None = None) -> Span:
        """The modality's tokens, none of them hidden."""
        spans = self.input_spans(record, rng)
        if not spans:
            raise UserError(f"field {next(iter(self.inputs.values()))!r} is missing; there is nothing to restore")
        span = spans[0]
        self._check(span)
        return span

    def _check(self, span: Span) -> None:
        """UserError when the tokens hold nothing that can be asked for."""
        raise NotImplementedError(f"{type(self).__name__} must define _check")

    def _choose(self, record: Record, span: Span, able: Tensor, rng: torch.Generator | None) -> Tensor:
        """Which of the tokens `able` Bool[n] are hidden: Int[m], ascending. UserError where none can be."""
        if not bool(able.any()):
            raise UserError(f"{span.modality}: no token can be hidden and asked for; there is nothing to restore")
        # without a training generator the record's own name seeds the choice, so every evaluation asks the same
        rng = rng or torch.Generator().manual_seed(sum(str(record.get("id", span.length)).encode()))
        draw = torch.rand(span.length, generator=rng).masked_fill(~able, 2.0)
        return draw.argsort()[: max(1, round(float(able.sum()) * self.rate))].sort().values

    def truth(self, record: Record) -> str:
        return "the hidden tokens"


@dataclass(kw_only=True)
class Restore(Hiding):
    """key: which of the modality's tensors [n, ...] is hidden and asked for. bins, sigma: of the candidates."""

    kind: ClassVar[str] = "restore"
    metric: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    line_kind: ClassVar[str] = "numbers"
    key: str = "patch"
    bins: int = 64
    sigma: float = 2.0

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import restore

        return restore()

    def _check(self, span: Span) -> None:
        value = span.data.get(self.key)
        if value is None or len(value) != span.length or not value.is_floating_point():
            raise UserError(f"{span.modality} has no numbers {self.key!r} in each token; it has {list(span.data)}")

    def values(self, span: Span) -> Tensor:
        """What a token is asked for: the mean of its numbers that were measured, Float[n]."""
        value = span.data[self.key].reshape(span.length, -1)
        if not self.modalities[span.modality].flagged:
            return value.mean(1)
        value, measured = value.chunk(2, dim=1)
        return (value * measured).sum(1) / measured.sum(1).clamp(min=1)

    def candidate_set(self, records: Records) -> CandidateSet:
        values = []
        for i in range(0, len(records), max(1, len(records) // 500)):
            span = self.whole(records[i])
            seen = slice(None) if span.mask is None else span.mask
            values.append(self.values(span)[seen])
        z = torch.cat(values).double()
        mean, std = float(z.mean()), float(z.std())
        if not std > 0:
            raise UserError(f"task {self.name}: all tokens of the training data are alike; there is nothing to restore")
        edges = bins.quantile_edges((z - mean) / std, self.bins)
        return Numbers(edges=[float(e) for e in edges], sigma=self.sigma, mean=mean, std=std)

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """The summary and the modality's tokens, the hidden ones zeroed and asked; labels Float[m], standardised."""
        span = self.whole(record, rng)
        real = torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask
        hidden = self._choose(record, span, real, rng)
        numbers: Any = self.candidates
        labels = (self.values(span)[hidden] - numbers.mean) / numbers.std
        shown = span.data[self.key].clone()
        shown[hidden] = 0
        span = replace(span, data=span.data | {self.key: shown}).ask(hidden, labels)
        return Example([self.modalities["summary"].span(None), span], record=str(record.get("id", "")))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
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


@dataclass(kw_only=True)
class RestoreCodes(Hiding):
    """Hidden tokens among a codebook: `codes` kinds of token, learnt from training records
    (`generalist.tasks.candidates.codebook`)."""

    kind: ClassVar[str] = "restore_codes"
    codes: int = 64

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import restore_codes

        return restore_codes()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes < 2:
            raise UserError(f"task {self.name}: codes={self.codes}; a likelihood needs at least two to choose among")

    def _check(self, span: Span) -> None:
        lacking = [key for key in self.modalities[span.modality].content() if len(span.data[key]) != span.length]
        if lacking:
            raise UserError(f"{span.modality} has no {lacking[0]!r} in each token; masked modelling is not for it")

    def candidate_set(self, records: Records) -> CandidateSet:
        spans = (self.whole(records[i]) for i in range(0, len(records), max(1, len(records) // 2000)))
        return learn_codes(self.modalities[next(iter(self.inputs))], spans, self.codes)

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """The summary and the modality's tokens, the hidden ones without content and asked; labels Int[m]."""
        span, codes = self.whole(record, rng), self.among_kind(Codes)
        modality = self.modalities[span.modality]
        hidden = self._choose(record, span, modality.hideable(span), rng)
        shown = {key: value.clone() for key, value in span.data.items()}
        for key, blank in modality.content().items():
            shown[key][hidden] = shown[key].new_tensor(blank)  # 0 and 0.0 alike
        labels = codes.assign({key: value[hidden] for key, value in span.data.items()})
        span = replace(span, data=shown).ask(hidden, labels)
        return Example([self.modalities["summary"].span(None), span], record=str(record.get("id", "")))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        """accuracy and surprise among the codes; tokens of a kind that no code has are left out."""
        asked = labels >= 0
        return {"accuracy": accuracy(log_p, labels), "nll": surprise(log_p[asked], labels[asked])}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        asked = kept.labels >= 0
        if not bool(asked.any()):  # nothing that a code stands for: all wrong
            return super().keep(kept)
        return {"record": kept.owner[asked].numpy(), **lines.named(kept.log_p[asked], kept.labels[asked])}
