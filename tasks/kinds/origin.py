"""The origin of a forecast: what is known up to it, the question that is asked there, and the answer's units.

One window's inputs, read once, for whoever asks, teaches or draws a forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tasks.candidates.names import Numbers, Residuals
from generalist.tokenizers_mod.numbers.series import load_array

if TYPE_CHECKING:
    from generalist.tasks.kinds.forecast import Forecast


class Origin:
    """One window's inputs, read.

    raw: {modality: raw value} of a forecast's inputs. mean, std: location and unit of the answers, the past's own
    (`Series.statistics`). UserError: a missing past, several channels, a relative input of another shape.
    """

    def __init__(self, raw: Mapping[str, Any], task: Forecast) -> None:
        self.modalities, self.task = task.modalities, task
        self.name, *others = task.inputs
        series: Any = self.modalities[self.name]
        if raw.get(self.name) is None:
            raise UserError(f"{self.name}: a forecast needs a past, none is given")
        self.past: Float[Tensor, " t"] = series.read(raw[self.name])
        if self.past.ndim != 1:
            raise UserError(f"{self.name}: {self.past.shape[1]} channels given; a forecast is of one, give one column")
        self.mean, self.std = series.statistics(self.past)
        self.beside: dict[str, Any] = {}
        self.known: list[Tensor] = []  # what the linear forecast reads besides the past
        for name in others:
            value = raw.get(name)
            if name in task.relative:
                value = self._in_units(name, value)
                self.known.append(value[-task.newest :].reshape(-1))
            if value is not None:  # a missing modality
                self.beside[name] = self.modalities[name].read(value)

    def _in_units(self, name: str, value: Any) -> Float[Tensor, "t k"]:
        """A relative input as deviations from the past's location in its unit."""
        if value is None:
            raise UserError(f"{name}: this forecast is relative to it and cannot do without")
        array, what = load_array(value, name)
        if array.ndim != 2 or len(array) < max(1, self.task.newest):
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
        return numbers.location(self.features)[: self.task.horizon] if isinstance(numbers, Residuals) else 0.0

    def spans(self, slots: Span, rng: torch.Generator | None = None) -> list[Span]:
        """[summary, past, other inputs, slots]."""
        slot: Any = self.modalities[self.task.slot]
        series = self.modalities[self.name].span(self.past, rng)
        others = [self.modalities[name].span(value, rng) for name, value in self.beside.items()]
        asked = slot.remember(slots, self.normalised)
        return [self.modalities["summary"].span(None), series, *others, asked]

    def question(self) -> list[Span]:
        """The sequence that asks for the unknown future."""
        slot: Any = self.modalities[self.task.slot]
        return self.spans(slot.span(self.task.horizon))

    def quantiles(
        self, numbers: Numbers, log_p: Float[Tensor, "slots a K"], levels: tuple[float, ...]
    ) -> list[Float[Tensor, " horizon"]]:
        """Quantiles of the future in the series' own units, one tensor a level."""
        location = self.location(numbers)
        horizon = self.task.horizon
        found = [numbers.quantile(log_p, q).reshape(-1)[:horizon].double().cpu() for q in levels]
        if numbers.widths:
            middle, widths = numbers.quantile(log_p, 0.5).reshape(-1)[:horizon].double().cpu(), numbers.widths
            found = [middle + torch.tensor(widths, dtype=torch.float64) * (z - middle) for z in found]
        return [(z + location) * self.std + self.mean for z in found]
