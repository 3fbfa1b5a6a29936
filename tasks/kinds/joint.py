"""The origin of a joint forecast: many series at once, each asked for its future at its own token (iTransformer)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tasks.candidates.names import Numbers
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.variates import Variates

if TYPE_CHECKING:
    from generalist.tasks.kinds.forecast import Forecast


class JointOrigin:
    """One window's inputs, read: past [t, V], and in its variates' own units mean and std [V]."""

    def __init__(self, raw: Mapping[str, Any], task: Forecast) -> None:
        self.modalities, self.task = task.modalities, task
        self.name, *others = task.inputs
        variates = self.modalities[self.name]
        if not isinstance(variates, Variates):
            raise UserError(f"task {task.name}: joint forecasts are of variates; put such a modality first in inputs")
        if variates.horizon != task.horizon:
            raise UserError(
                f"task {task.name}: a token of {self.name!r} asks {variates.horizon} steps, the horizon is "
                f"{task.horizon}; set modalities.{self.name}.horizon={task.horizon}"
            )
        if raw.get(self.name) is None:
            raise UserError(f"{self.name}: a forecast needs a past, none is given")
        self.past: Float[Tensor, "t V"] = variates.read(raw[self.name])
        self.mean, self.std = variates.statistics(self.past)
        given = ((name, raw.get(name)) for name in others)
        self.beside = {name: self.modalities[name].read(value) for name, value in given if value is not None}

    @property
    def normalised(self) -> Float[Tensor, "t V"]:
        """The past in its own units."""
        return (self.past - self.mean) / self.std

    def future(self, values: Any) -> Float[Tensor, "V h"]:
        """Future values [h, V] in the past's units, a row a variate. UserError for another shape."""
        future = torch.as_tensor(values, dtype=torch.float64)
        future = future.unsqueeze(1) if future.ndim == 1 else future
        wanted = (self.task.horizon, self.past.shape[1])
        if future.shape != wanted:
            raise UserError(
                f"field {self.task.future!r}: shape {tuple(future.shape)}; a joint forecast of {wanted[1]} variates "
                f"needs {wanted}"
            )
        return ((future - self.mean) / self.std).float().T.contiguous()

    def sequence(self, labels: Tensor | None, rng: torch.Generator | None = None) -> list[Span]:
        """[summary, variates, other inputs], asked at every variate; labels: Float[V h], or None at inference."""
        variates = self.modalities[self.name].span(self.past, rng)
        others = [span for name, value in self.beside.items() for span in self._spans(name, value, rng)]
        asked = variates.ask(torch.arange(variates.length), labels)
        return [self.modalities["summary"].span(None), asked, *others]

    def _spans(self, name: str, value: Tensor, rng: torch.Generator | None) -> list[Span]:
        """Series of many channels are a span each."""
        modality = self.modalities[name]
        return modality.spans(value, rng) if isinstance(modality, Series) else [modality.span(value, rng)]

    def question(self) -> list[Span]:
        """The sequence that asks for the unknown future."""
        return self.sequence(None)

    def quantiles(
        self, numbers: Numbers, log_p: Float[Tensor, "V h K"], levels: tuple[float, ...]
    ) -> list[Float[Tensor, "h V"]]:
        """Quantiles of the future in the data's own units, one tensor a level."""
        found = [numbers.quantile(log_p, q).double().cpu() for q in levels]
        if numbers.widths:
            middle, widths = numbers.quantile(log_p, 0.5).double().cpu(), torch.tensor(numbers.widths).double()
            found = [middle + widths * (z - middle) for z in found]
        return [z.T * self.std + self.mean for z in found]
