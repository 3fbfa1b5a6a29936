"""Numbers as tokens: the candidates of regression and forecasting.

Source: `spec/numbers.md`, formulas and point 1: a numeric tokenizer, never a free table of bins (measured:
the table trains much slower and has ragged tails).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError, told
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality, check_finite, periodic
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.raw import as_numbers
from generalist.tokenizers_mod.base.tokenizer import Tokenizer

LARGEST = 1e6  # beyond this, float32 has no phase left for the periodic features


@dataclass
class Number(Modality):
    """k standardised numbers -> k tokens.

    frequencies: how many, log-spaced from f_min to f_max in cycles per unit (per standard deviation).
    hidden: of the MLP.

    >>> number = Number()
    >>> number.span(number.read([0.5, -1.2, 3.0])).length
    3
    """

    name: ClassVar[str] = "number"
    raw: ClassVar[str] = "a number or a list of standardised numbers [k]"
    count: ClassVar[str] = "k"
    axes: ClassVar[int] = 1

    frequencies: int = 8
    f_min: float = 0.05
    f_max: float = 4.0
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.frequencies < 1 or self.hidden < 1 or not 0 < self.f_min <= self.f_max:
            raise UserError("number: frequencies and hidden must be >= 1 and 0 < f_min <= f_max")

    def read(self, raw: Any) -> Float[Tensor, " k"]:
        """-> float32 [k]. UserError: empty, not numbers, NaN or infinite, beyond +-1e6."""
        try:
            value = torch.from_numpy(np.ascontiguousarray(as_numbers(raw, "number"))).reshape(-1)
        except UserError as error:
            raise UserError(f"number: {told(raw)} is not a list of numbers ({error})") from error
        if len(value) == 0:
            raise UserError("number: no values; give at least one")
        check_finite(value, "number")
        if value.abs().max() > LARGEST:
            raise UserError(f"number: {value.abs().max():.3g} is beyond {LARGEST:g}; standardise the values first")
        return value.float()

    def span(self, value: Float[Tensor, " k"], rng: torch.Generator | None = None) -> Span:
        """[k] -> data {"value": [k]}."""
        return Span(self.name, {"value": value}, len(value))

    def steady(self) -> tuple[str, ...]:
        return ("read", "span")

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.numbers.examples import number

        return number()

    def build(self, width: int) -> NumberTokens:
        return NumberTokens(self, width)


class NumberTokens(Tokenizer):
    """T(c) = MLP([c, asinh c, sin 2 pi f c, cos 2 pi f c])."""

    def __init__(self, settings: Number, width: int) -> None:
        super().__init__()
        # numbers, not a buffer: nothing to save, and nothing to lose when the model is built without memory
        self.range = (math.log10(settings.f_min), math.log10(settings.f_max), settings.frequencies)
        size = 2 + 2 * settings.frequencies
        self.mlp = nn.Sequential(nn.Linear(size, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, width))

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"value": [N]} -> [N, width]."""
        value = data["value"].float()  # phases need float32, whatever the weights are
        frequencies = torch.logspace(*self.range, device=value.device)
        features = [value.unsqueeze(-1), value.asinh().unsqueeze(-1), periodic(value, frequencies)]
        return self.mlp(torch.cat(features, dim=-1).to(next(self.parameters()).dtype))
