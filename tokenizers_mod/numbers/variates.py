"""Variates: a window of many series at once, a token a series (iTransformer, 2310.06625).

The whole history of a variate is one token, a linear of its instance-normalised values; tokens are a set, so that any
number of variates runs, in training and later. Asked themselves they tell their futures (`Forecast(joint=True)`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken
from generalist.tokenizers_mod.numbers.series import load_array


@dataclass
class Variates(Modality):
    """Numbers in time [t, V] -> V tokens.

    context: steps that a token holds, the newest; shorter windows begin with missing ones. normalise: each variate by
    its own mean and deviation (`eps` added to the variance). horizon: future steps that a token asks, 0 where it is
    never asked. Time marks are variates too: further columns, or a further modality of this class.

    >>> variates = Variates(context=96)
    >>> variates.span(variates.read(np.random.rand(96, 7))).length
    7
    """

    name: ClassVar[str] = "variates"
    raw: ClassVar[str] = "array, pandas or polars [t, variates], NaN = missing; .csv, .npy or .parquet path"
    count: ClassVar[str] = "variates"
    axes: ClassVar[int] = 0

    context: int = 96
    normalise: bool = True
    eps: float = 1e-5
    horizon: int = 0

    def __post_init__(self) -> None:
        if self.context < 1 or self.horizon < 0 or self.eps <= 0:
            raise UserError("variates: context must be >= 1, horizon >= 0 and eps > 0")

    @property
    def answers(self) -> int:
        """Questions a token asks."""
        return max(1, self.horizon)

    def read(self, raw: Any) -> Float[Tensor, "t V"]:
        """-> float64 [t, V], NaN = missing. UserError: unreadable, empty, infinite, or a variate without any value."""
        array, what = load_array(raw, "variates")
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or array.size == 0:
            raise UserError(f"{what}: shape {array.shape}; expected at least one step of one variate: [t, variates]")
        if np.isinf(array).any():
            raise UserError(f"{what}: {int(np.isinf(array).sum())} infinite values; use NaN for missing ones")
        seen = ~np.isnan(array[-self.context :])
        if not seen.any(axis=0).all():
            raise UserError(f"{what}: no value of variate {int(np.argmin(seen.any(axis=0)))} is there; leave it out")
        if np.nanmax(np.abs(array)) > 1e30:
            raise UserError(f"{what}: values up to {np.nanmax(np.abs(array)):.3g}; rescale them")
        return torch.from_numpy(np.array(array))

    def statistics(self, value: Float[Tensor, "t V"]) -> tuple[Float[Tensor, " V"], Float[Tensor, " V"]]:
        """(mean, std) of every variate in the context; (0, 1) without `normalise`."""
        value = value[-self.context :].double()
        if not self.normalise:
            return torch.zeros_like(value[0]), torch.ones_like(value[0])
        mean = value.nanmean(dim=0)
        return mean, ((value - mean).square().nanmean(dim=0) + self.eps).sqrt()

    def span(self, value: Float[Tensor, "t V"], rng: torch.Generator | None = None) -> Span:
        """[t, V] -> data {"window": [V, 2 context]}: the normalised values, 0 where missing, then which are missing."""
        value = value[-self.context :]
        mean, std = self.statistics(value)
        z = ((value - mean) / std).float().T
        z = nn.functional.pad(z, (self.context - z.shape[1], 0), value=float("nan"))
        missing = z.isnan()
        return Span(self.name, {"window": torch.cat([z.masked_fill(missing, 0.0), missing.float()], dim=1)}, len(z))

    def steady(self) -> tuple[str, ...]:
        return ("read", "statistics", "span")

    def content(self) -> dict[str, float]:
        return {"window": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        return {"kind": "series", "past": self.read(raw)[:, 0].tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.numbers.examples import variates

        return variates()

    def build(self, width: int) -> VariateTokens:
        return VariateTokens(self, width)


class VariateTokens(Tokenizer):
    """A linear of a window, one of which of its steps are missing beside; `unfold` for those that are asked."""

    def __init__(self, settings: Variates, width: int) -> None:
        super().__init__()
        self.answers, self.horizon = settings.answers, settings.horizon
        self.values = nn.Linear(settings.context, width)
        self.missing = nn.Linear(settings.context, width, bias=False)
        nn.init.zeros_(self.missing.weight)
        self.questions = nn.Linear(width, self.horizon * width) if self.horizon else None

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"window": [N, 2 context]} -> [N, width]."""
        values, missing = taken(data["window"], self.values).chunk(2, dim=1)
        return self.values(values) + self.missing(missing)

    def unfold(self, h: Float[Tensor, "M D"]) -> Float[Tensor, "M *a D"]:
        """Encoded variates [M, D] -> [M, horizon, D], one query a future step; as they are without a horizon."""
        return h if self.questions is None else self.questions(h).unflatten(-1, (self.answers, h.shape[-1]))
