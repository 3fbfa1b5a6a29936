"""Forecasting: [summary, past, future slots·] among number tokens; a distribution for every future step.

Each slot token asks one question a future step of its patch (numbers spec: quantile bins of the
instance-normalised value, expectation for squared error, median for absolute error). With `linear` the
numbers are what a closed-form linear forecast leaves over, so that the model starts from that forecast. Covariates are
further inputs: a table's row, a picture, other sensors. Those in the past's own units, such as the sensors or pixels
around, are `relative`: the linear forecast reads them too, and they are told as deviations from the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.learn import learn_tables
from generalist.tasks.base.task import Task
from generalist.tasks.candidates import ridge
from generalist.tasks.candidates.answers import Answer
from generalist.tasks.candidates.names import CandidateSet, Numbers, Residuals
from generalist.tasks.kinds.joint import JointOrigin
from generalist.tasks.kinds.origin import Origin
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean, mean_of
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers import bins
from generalist.tokenizers_mod.numbers.variates import Variates

UNITS = ("past", "data")


@dataclass(kw_only=True)
class Forecast(Task):
    """inputs: the past first, then covariates of any modality, [summary, past, covariates·, slots·].

    future: the record's field with the next values. bins, sigma, auxiliary as in the numbers spec. relative: modalities
    of those covariates [t, k] that are in the past's units; newest: how many of their steps the linear forecast reads
    (0 = all).

    linear: ridge strength of the linear forecast under the answers, 0 = none (`tasks.candidates.ridge`); windows
    whose past hardly moves count little in it. slot: the modality that asks. units: of the measured errors, "past"
    (deviations of each window's past) or "data" (the record's own).

    joint: the first input are `Variates` [t, V] and the future is [horizon, V]: every variate is asked for its own at
    its token, so that no slots are needed.
    """

    kind: ClassVar[str] = "forecast"
    foretells: ClassVar[bool] = True
    metric: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False
    line_kind: ClassVar[str] = "numbers"
    reads: ClassVar[tuple[str, ...]] = ("future",)
    inputs: dict[str, str] = field(default_factory=lambda: {"series": "past"})
    future: str = "future"
    horizon: int = 24
    bins: int = 64
    sigma: float = 2.0
    auxiliary: float = 0.0
    linear: float = 0.0
    slot: str = "slot"
    units: str = "past"
    joint: bool = field(default=False, kw_only=True)
    relative: list[str] = field(default_factory=list)
    newest: int = 0

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import forecast

        return forecast()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 2 or self.sigma <= 0:
            raise UserError(f"task {self.name}: bins must be >= 2 and sigma > 0, got {self.bins} and {self.sigma}")
        if not 0 <= self.linear < float("inf"):
            raise UserError(f"task {self.name}: linear is {self.linear}; a ridge strength is at least 0 (0 = none)")
        if self.units not in UNITS:
            raise UserError(f"task {self.name}: units={self.units!r}; {nearest(self.units, UNITS)}")
        if not self.inputs:
            raise UserError(f"task {self.name}: inputs is empty; a forecast has a past")
        covariates = list(self.inputs)[1:]
        if lacking := [name for name in self.relative if name not in covariates]:
            hint = nearest(lacking[0], covariates)
            raise UserError(f"task {self.name}: relative={lacking} are no covariates; {hint}")
        if self.joint and (self.linear or self.relative):
            raise UserError(
                f"task {self.name}: a joint forecast takes no linear part and no relative inputs; leave out"
            )
        if self.newest < 0:
            raise UserError(f"task {self.name}: newest must be >= 0 steps, got {self.newest}")
        if self.horizon < 1:
            raise UserError(f"task {self.name}: horizon must be at least 1 step, got {self.horizon}")

    def used(self) -> set[str]:
        return super().used() | (set() if self.joint else {self.slot})

    @property
    def series(self) -> Any:
        """The modality of the past."""
        return self.modalities[next(iter(self.inputs))]

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn_tables(self, modalities, records, [name for name in self.inputs if name not in self.relative])
        past = modalities[next(iter(self.inputs))]
        if self.joint and isinstance(past, Variates) and not past.horizon:
            past.horizon = self.horizon

    def origin(self, record: Record) -> Any:
        """What is known of a record up to its forecast, an `Origin` or where `joint` a `JointOrigin`. UserError names a
        field that it lacks."""
        if lacking := [name for name in self.inputs.values() if name not in record]:
            raise UserError(f"no field {lacking[0]!r}; {nearest(lacking[0], record)}")
        raw = {modality: record[name] for modality, name in self.inputs.items()}
        return JointOrigin(raw, self) if self.joint else Origin(raw, self)

    def candidate_set(self, records: Records) -> CandidateSet:
        step = max(1, len(records) // 2000)
        settings: dict[str, Any] = {"sigma": self.sigma, "auxiliary": self.auxiliary}
        if not self.linear:
            z = [self._future(self.origin(records[i]), records[i]) for i in range(0, len(records), step)]
            return Numbers(edges=self._edges([values.flatten() for values in z]), **settings)
        windows, stds, series = [], [], []
        for i in range(len(records)):
            origin, record = self.origin(records[i]), records[i]
            windows.append((origin.features.float(), self._future(origin, record)))
            stds.append(float(origin.std))
            series.append(record.get("series", ""))
        context = min(len(known) for known, _ in windows)
        counts = ridge.influence(stds, series)
        matrix = ridge.fit(windows, context, self.linear, counts)
        left = [future - ridge.newest(known, context) @ matrix for known, future in windows[::step]]
        edges = self._edges(left, counts[::step])
        return Residuals(edges=edges, weights=ridge.to_text(matrix), context=context, **settings)

    def _edges(self, z: list[Tensor], counts: Tensor | None = None) -> list[float]:
        """counts: how much each window counts."""
        each = None if counts is None else counts.repeat_interleave(torch.tensor([len(values) for values in z]))
        return [float(e) for e in bins.quantile_edges(torch.cat(z), self.bins, each)]

    def bind(self, modalities: dict[str, Modality], candidates: CandidateSet | None, info: dict[str, Any]) -> None:
        super().bind(modalities, candidates, info)
        if not self.joint and self.slot not in modalities:
            raise UserError(f"task {self.name}: forecasting asks at future slots; add the modality {self.slot!r}")

    def _future(self, origin: Any, record: Record) -> Tensor:
        """The future in the past's units: Float[horizon], or of every variate Float[V horizon]."""
        future: Tensor = origin.future(record[self.future])
        if future.shape[-1] != self.horizon:
            raise UserError(f"field {self.future!r} has {len(future)} values, the horizon is {self.horizon}")
        return future

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        origin = self.origin(record)
        known = record.get(self.future) is not None
        if self.joint:
            labels = self._future(origin, record) if known else None
            return Example(origin.sequence(labels, rng), record=str(record.get("id", "")))
        slot: Any = self.modalities[self.slot]
        numbers: Any = self.candidates
        asked = slot.read(self._future(origin, record) - origin.location(numbers)) if known else self.horizon
        return Example(origin.spans(slot.span(asked), rng), record=str(record.get("id", "")))

    def asked(self, record: Record) -> list[Span]:
        spans: list[Span] = self.origin(record).question()
        return spans

    def read(self, record: Record, log_p: Tensor, rows: Mapping[str, Tensor]) -> Answer:
        """Median and 80 % band of every future step, in the series' own units."""
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        low, middle, high = self.origin(record).quantiles(numbers, log_p, (0.1, 0.5, 0.9))
        return Answer(value=middle.tolist(), interval=(low.tolist(), high.tolist()))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
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
        """A line a future step, in the task's `units`."""
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        real = ~kept.labels.isnan()
        widths = self._widths(numbers, kept)
        widths = None if widths is None else widths[real]
        columns = lines.numbers(kept.log_p[real], kept.labels[real], numbers, widths=widths)
        if self.units == "data":
            scale, shift = (value[real].numpy() for value in self._units(kept))
            columns = {name: value * scale + (0 if name == "crps" else shift) for name, value in columns.items()}
        return {"record": kept.owner.unsqueeze(1).expand(real.shape)[real].numpy(), **columns}

    @property
    def numbered(self) -> Numbers | None:
        return self.candidates if isinstance(self.candidates, Numbers) else None

    def by_step(self, values: Tensor, windows: int) -> Tensor:
        """[M a ...] of asked tokens -> a row a window and, of a joint forecast, variate, with its steps: [n h ...]."""
        return values if self.joint else values.reshape(windows, -1, *values.shape[2:])[:, : self.horizon]

    def _widths(self, numbers: Numbers, kept: lines.Kept) -> Tensor | None:
        """The width of every label's interval by its step ahead, Float[M a]; None where none are set."""
        if not numbers.widths:
            return None
        each = kept.owner.unique_consecutive(return_counts=True)[1]
        steps = kept.labels.shape[1]
        if self.joint:  # a row a variate
            return torch.tensor(numbers.widths).expand(len(kept.labels), -1)
        found = torch.ones(int(each.max()) * steps)  # beyond the horizon as well
        found[: len(numbers.widths)] = torch.tensor(numbers.widths)
        return torch.cat([found[: n * steps] for n in each.tolist()]).view(kept.labels.shape)

    def _units(self, kept: lines.Kept) -> tuple[Tensor, Tensor]:
        """scale and shift, Float[M a] each: a label's value in the data's units is label * scale + shift."""
        records, counts = kept.owner.unique_consecutive(return_counts=True)
        parts = []
        for record, count in zip(records.tolist(), counts.tolist(), strict=True):
            origin, numbers = self.origin(kept.record(record)), self.candidates
            assert isinstance(numbers, Numbers)
            if self.joint:  # a row a variate
                parts.append(torch.stack([origin.std, origin.mean]).repeat_interleave(self.horizon, dim=1))
                continue
            zero = torch.zeros(count * kept.labels.shape[1], dtype=torch.float64)  # beyond the horizon as well
            zero[: self.horizon] += origin.location(numbers)
            parts.append(torch.stack([origin.std.expand(len(zero)), zero * origin.std + origin.mean]))
        scale, shift = torch.cat(parts, dim=1).view(2, *kept.labels.shape)
        return scale, shift

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        """The mean of the medians in units of the past's deviation. log_p: Float[a K] of one slot."""
        numbers = self.candidates
        assert isinstance(numbers, Numbers)
        return [(f"median {float(numbers.quantile(log_p, 0.5).mean()):.2f} deviations from the past's mean", 0.5)]

    def show(self, record: Record, log_p: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
        """The past, the future as it came, and the forecast's median with its 80 % band."""
        origin, numbers = self.origin(record), self.candidates
        assert isinstance(numbers, Numbers)
        past, future = origin.past, torch.as_tensor(record[self.future], dtype=torch.float64)
        low, median, high = origin.quantiles(numbers, log_p, (0.1, 0.5, 0.9))
        if self.joint:  # the first variate stands for all
            past, future, low, median, high = (t.view(len(t), -1)[:, 0] for t in (past, future, low, median, high))
        coming = future.reshape(-1).tolist()
        drawn = {"low": low.tolist(), "median": median.tolist(), "high": high.tolist()}
        error = float((median - future.reshape(-1)).abs().nanmean())  # a gap in what came tells nothing
        return {
            "input": {"kind": "series", "past": past.tolist(), "future": coming, **drawn},
            "truth": f"the next {self.horizon} values of {record.get('series', 'the series')}",
            "answers": [[f"median forecast, mean absolute error {error:.3g}", 1.0]],
            "correct": None,
        }

    def truth(self, record: Record) -> str:
        return " ".join(f"{float(v):.4g}" for v in torch.as_tensor(record[self.future]).flatten())
