"""The origin of a forecast: what is known up to it, the question that is asked there, and the answer's units.

What a forecasting task and a saved model's predictions share, so that both ask and read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tasks.candidates import Numbers, Residuals
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers.series import load_array


class Origin:
    """One window's inputs, read.

    raw: {modality: raw value}; about: as `Forecast.about` says it ("inputs", the past first; "horizon"; "slot";
    "relative", "newest"). mean, std: location and unit of the answers, the past's own (`Series.statistics`).
    UserError: a missing past, several channels, a relative input of another shape.
    """

    def __init__(self, raw: Mapping[str, Any], modalities: Mapping[str, Modality], about: Mapping[str, Any]) -> None:
        self.modalities, self.about = modalities, about
        self.name, *others = about["inputs"]
        series: Any = modalities[self.name]
        if raw.get(self.name) is None:
            raise UserError(f"{self.name}: a forecast needs a past, none is given")
        self.past: Float[Tensor, " t"] = series.read(raw[self.name])
        if self.past.ndim != 1:
            raise UserError(f"{self.name}: {self.past.shape[1]} channels given; a forecast is of one, give one column")
        self.mean, self.std = series.statistics(self.past)
        relative = about.get("relative", ())
        self.beside: dict[str, Any] = {}
        self.known: list[Tensor] = []  # what the linear forecast reads besides the past
        for name in others:
            value = raw.get(name)
            if name in relative:
                value = self._in_units(name, value)
                self.known.append(value[-about.get("newest", 0) :].reshape(-1))
            if value is not None:  # a missing modality
                self.beside[name] = modalities[name].read(value)

    def _in_units(self, name: str, value: Any) -> Float[Tensor, "t k"]:
        """A relative input as deviations from the past's location in its unit."""
        if value is None:
            raise UserError(f"{name}: this forecast is relative to it and cannot do without")
        array, what = load_array(value, name)
        if array.ndim != 2 or len(array) < max(1, self.about.get("newest", 0)):
            raise UserError(f"{what}: shape {array.shape}; expected [t, channels] over the past's newest steps")
        return ((torch.as_tensor(array).double() - self.mean) / self.std).float()

    @property
    def normalised(self) -> Float[Tensor, " t"]:
        """The past in its own units."""
        return (self.past - self.mean) / self.std

    @property
    def features(self) -> Float[Tensor, " f"]:
        """What a linear forecast reads: the past, then the newest steps of every relative input."""
        known = [value.nan_to_num() for value in self.known]
        return torch.cat([self.normalised.float(), *known]) if known else self.normalised

    def future(self, values: Any) -> Float[Tensor, " h"]:
        """Future values in the past's units."""
        future = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
        return ((future - self.mean) / self.std).float()

    def location(self, numbers: Numbers | None) -> Tensor | float:
        """Where the numbers' zero lies, in the past's units: the linear forecast Float[horizon], or 0."""
        return numbers.location(self.features)[: self.about["horizon"]] if isinstance(numbers, Residuals) else 0.0

    def spans(self, slots: Span, rng: torch.Generator | None = None) -> list[Span]:
        """[summary, past, other inputs, slots]."""
        slot: Any = self.modalities[self.about["slot"]]
        series = self.modalities[self.name].span(self.past, rng)
        others = [self.modalities[name].span(value, rng) for name, value in self.beside.items()]
        asked = slot.remember(slots, self.normalised)
        return [self.modalities["summary"].span(None), series, *others, asked]

    def question(self) -> list[Span]:
        """The sequence that asks for the unknown future."""
        slot: Any = self.modalities[self.about["slot"]]
        return self.spans(slot.span(self.about["horizon"]))

    def quantiles(
        self, numbers: Numbers, log_p: Float[Tensor, "slots a K"], levels: tuple[float, ...]
    ) -> list[Float[Tensor, " horizon"]]:
        """Quantiles of the future in the series' own units, one tensor a level."""
        location = self.location(numbers)
        horizon = self.about["horizon"]
        found = [numbers.quantile(log_p, q).reshape(-1)[:horizon].double().cpu() for q in levels]
        return [(z + location) * self.std + self.mean for z in found]
