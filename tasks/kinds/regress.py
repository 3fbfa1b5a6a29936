"""Regression as a distribution: [summary·, x] among number tokens (numbers spec, defaults of `regress`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.base.outliers import inside
from generalist.data.batch.types import Example
from generalist.data.stream.source import Record, Records
from generalist.data.tables.typed import number
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.learn import learn_tables
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Numbers
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean, mean_of
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers import bins
from generalist.tokenizers_mod.tables.schema import to_number


def as_number(value: Any) -> float | None:
    """A target as a number, however it was written ($1,234); None where it is none."""
    return number(value) if isinstance(value, str) else to_number(value)


@dataclass(kw_only=True)
class Regress(Task):
    """target: the record's field with the value. bins: number of candidates; sigma: soft-label width in bins."""

    kind: ClassVar[str] = "regress"
    asks_once: ClassVar[bool] = True
    metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    line_kind: ClassVar[str] = "numbers"
    reads: ClassVar[tuple[str, ...]] = ("target",)
    target: str = "target"
    bins: int = 64
    sigma: float = 2.0

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import regress

        return regress()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 2 or self.sigma <= 0:
            raise UserError(f"task {self.name}: bins must be >= 2 and sigma > 0, got {self.bins} and {self.sigma}")

    def answer_fields(self) -> tuple[str, ...]:
        return (self.target,)

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn_tables(self, modalities, records)

    def candidate_set(self, records: Records) -> CandidateSet:
        found = [as_number(records[i][self.target]) for i in range(len(records))]
        values = torch.tensor([float("nan") if v is None else v for v in found], dtype=torch.float64)
        if not values.isfinite().all():
            bad = int((~values.isfinite()).nonzero()[0])
            name, value = records[bad].get("id", bad), records[bad][self.target]
            raise UserError(f"task {self.name}: the target of record {name} is {value!r}; remove it")
        near = torch.from_numpy(inside(values.numpy()))
        if not bool(near.all()):  # their scale would leave one bin to all others
            far, count = values[~near], int((~near).sum())
            told = f"{count} of {len(values)} targets lie far from the others (such as {float(far[0]):g}); "
            told += "they count as the outermost bin and set no scale"
            if told not in records.info.get("notes", []):
                records.info["notes"] = [*records.info.get("notes", []), told]
            values = values[near]
        mean, std = float(values.mean()), float(values.std())
        if not std > 0:
            raise UserError(f"task {self.name}: all training targets equal {mean:g}; there is nothing to regress")
        z = (values - mean) / std
        edges = bins.uniform_edges(float(z.min()) - 0.5, float(z.max()) + 0.5, self.bins)
        return Numbers(edges=[float(e) for e in edges], sigma=self.sigma, mean=mean, std=std)

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        labels = None
        if self.has_answer(record, self.target, rng is not None):
            value = as_number(record[self.target])
            if value is None or not abs(value) < float("inf"):
                raise UserError(f"target {self.target!r} is {record[self.target]!r}; it must be a finite number")
            numbers = self.among_kind(Numbers)
            labels = torch.tensor([(value - numbers.mean) / numbers.std], dtype=torch.float32)
        return Example([self.question(labels), *self.input_spans(record, rng)], record=str(record.get("id", "")))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        squared = ((numbers.expectation(log_p) - labels) * numbers.std) ** 2
        absolute = ((numbers.quantile(log_p, 0.5) - labels) * numbers.std).abs()
        covered = (numbers.quantile(log_p, 0.1) <= labels) & (labels <= numbers.quantile(log_p, 0.9))
        rmse = mean_of(squared)
        rmse.root = True
        return {"rmse": rmse, "mae": mean_of(absolute), "coverage of 80% interval": mean_of(covered)}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        widths = torch.full((len(kept.labels),), numbers.widths[0]) if numbers.widths else None
        return {
            "record": kept.owner.numpy(),
            **lines.numbers(kept.log_p, kept.labels, numbers, numbers.mean, numbers.std, widths),
        }

    @property
    def numbered(self) -> Numbers | None:
        return self.candidates if isinstance(self.candidates, Numbers) else None

    def by_step(self, values: Tensor, windows: int) -> Tensor:
        """[M ...] of asked tokens -> [M 1 ...]: a forecast of one step."""
        return values.unsqueeze(1)

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        """The median with the probability mass of the 80 % interval around it."""
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        low, mid, high = (float(numbers.quantile(log_p, q)) * numbers.std + numbers.mean for q in (0.1, 0.5, 0.9))
        return [(f"{mid:.4g} ({low:.4g} to {high:.4g})", 0.8)]

    def truth(self, record: Record) -> str:
        return f"{as_number(record[self.target]):.4g}"
