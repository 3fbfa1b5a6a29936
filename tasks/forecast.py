"""Forecasting: [summary, past, future slots·] among number tokens; a distribution for every future step.

Each slot token asks one question a future step of its patch (numbers spec: quantile bins of the
instance-normalised value, expectation for squared error, median for absolute error).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.errors import UserError
from data.source import Record, Records
from data.types import Example
from tasks import baselines, lines
from tasks.base import Task
from tasks.candidates import CandidateSet, Numbers
from tasks.metrics import Mean, mean_of
from tokenizers_mod import bins
from tokenizers_mod.base import Modality


@dataclass(kw_only=True)
class Forecast(Task):
    """future: the record's field with the next values. bins, sigma, auxiliary as in the numbers spec."""

    kind: ClassVar[str] = "forecast"
    metric: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False
    line_kind: ClassVar[str] = "numbers"
    inputs: dict[str, str] = field(default_factory=lambda: {"series": "past"})
    future: str = "future"
    horizon: int = 24
    bins: int = 64
    sigma: float = 2.0
    auxiliary: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 2 or self.sigma <= 0:
            raise UserError(f"task {self.name}: bins must be >= 2 and sigma > 0, got {self.bins} and {self.sigma}")
        if self.horizon < 1:
            raise UserError(f"task {self.name}: horizon must be at least 1 step, got {self.horizon}")

    def about(self) -> dict[str, Any]:
        return super().about() | {"horizon": self.horizon}

    def candidate_set(self, records: Records) -> CandidateSet:
        series: Any = self.modalities["series"]
        step = max(1, len(records) // 2000)
        z = []
        for i in range(0, len(records), step):
            past = series.read(records[i][self.inputs["series"]])
            z.append(self._standardise(series, past, records[i]))
        edges = bins.quantile_edges(torch.cat(z), self.bins)
        return Numbers(edges=[float(e) for e in edges], sigma=self.sigma, auxiliary=self.auxiliary)

    def bind(self, modalities: dict[str, Modality], candidates: CandidateSet | None, info: dict[str, Any]) -> None:
        super().bind(modalities, candidates, info)
        if "slot" not in modalities:
            raise UserError(f"task {self.name}: forecasting asks at future slots; add the modality 'slot'")

    def _standardise(self, series: Any, past: Any, record: Record) -> Tensor:
        """The future in units of the past's own mean and standard deviation: Float[horizon]."""
        mean, std = series.statistics(past)
        future = torch.as_tensor(record[self.future], dtype=torch.float64).reshape(-1)
        if len(future) != self.horizon:
            raise UserError(f"field {self.future!r} has {len(future)} values, the horizon is {self.horizon}")
        return ((future - mean) / std).float()

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        series: Any = self.modalities["series"]
        slot: Any = self.modalities["slot"]
        past = series.read(record[self.inputs["series"]])
        known = record.get(self.future) is not None
        slots = slot.span(slot.read(self._standardise(series, past, record)) if known else self.horizon)
        mean, std = series.statistics(past)
        slots = slot.remember(slots, (past - mean) / std)
        return Example(
            [self.modalities["summary"].span(None), series.span(past, rng), slots], record=str(record.get("id", ""))
        )

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        real = ~labels.isnan()
        log_p, z = log_p[real], labels[real]
        inside = (numbers.quantile(log_p, 0.1) <= z) & (z <= numbers.quantile(log_p, 0.9))
        return {
            "mae": mean_of((numbers.quantile(log_p, 0.5) - z).abs()),
            "mse": mean_of((numbers.expectation(log_p) - z) ** 2),
            "coverage of 80% interval": mean_of(inside),
        }

    def keep(self, kept: lines.Kept) -> lines.Columns:
        """A line a future step, in units of the past's own deviation."""
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        real = ~kept.labels.isnan()
        owner = kept.owner.reshape(-1, *(1,) * (kept.labels.ndim - 1)).expand(kept.labels.shape)
        return {"record": owner[real].numpy(), **lines.numbers(kept.log_p[real], kept.labels[real], numbers)}

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        """The mean of the medians in units of the past's deviation. log_p: Float[a K] of one slot."""
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        return [(f"median {float(numbers.quantile(log_p, 0.5).mean()):.2f} deviations from the past's mean", 0.5)]

    def bands(self, past: Any, log_p: Tensor, levels: tuple[float, ...] = (0.1, 0.5, 0.9)) -> list[Tensor]:
        """Quantiles of the future in the series' own units: Float[slots a K] -> one Float[horizon] a level."""
        numbers, series = self.candidates, self.modalities["series"]
        assert isinstance(numbers, Numbers)
        mean, std = series.statistics(past)  # type: ignore[attr-defined]
        return [(numbers.quantile(log_p, q).reshape(-1)[: self.horizon].double().cpu() * std + mean) for q in levels]

    def show(self, record: Record, log_p: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
        """The past, the future as it came, and the forecast's median with its 80 % band."""
        past = self.modalities["series"].read(record[self.inputs["series"]])
        low, median, high = self.bands(past, log_p)
        future = [float(v) for v in record[self.future]]
        drawn = {"low": low.tolist(), "median": median.tolist(), "high": high.tolist()}
        error = float((median - torch.tensor(future)).abs().mean())
        return {
            "input": {"kind": "series", "past": past.tolist(), "future": future, **drawn},
            "truth": f"the next {self.horizon} values of {record.get('series', 'the series')}",
            "answers": [[f"median forecast, mean absolute error {error:.3g}", 1.0]],
            "correct": None,
        }

    def truth(self, record: Record) -> str:
        return " ".join(f"{float(v):.4g}" for v in record[self.future])

    def baseline(self, train: Records, val: Records, test: Records) -> dict[str, Any]:
        return baselines.forecasting(self.inputs["series"], self.future, val, test, self.name)
