"""Future slots of a time series: empty tokens, each of which asks one patch of future steps.

Source: `spec/numbers.md` point 3 (a slot of one patch asks through Linear(width -> patch * width)).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError, told
from generalist.data.base.limits import limits, over
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.raw import as_numbers
from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.numbers.series import LONGEST, PERIODS, step_positions


@dataclass
class Slot(Modality):
    """A horizon -> ceil(horizon / patch) slots, every slot asked.

    recent: every slot also holds the newest `recent` normalised values and which were observed (0 = none): a straight
    way from the past to the answer beside attention, without which long horizons stay at the mean for long.
    patch: future steps a slot. periods, longest: of the positions; keep all three as in `Series`.

    >>> slot = Slot(patch=16)
    >>> slot.span(slot.read(96)).length
    6
    """

    name: ClassVar[str] = "slot"
    raw: ClassVar[str] = "horizon (whole number of steps), or the future's normalised values [horizon]"
    count: ClassVar[str] = "ceil(horizon / patch)"
    axes: ClassVar[int] = 1

    patch: int = 16
    periods: list[float] = field(default_factory=lambda: list(PERIODS))
    longest: float = LONGEST
    recent: int = 0

    def __post_init__(self) -> None:
        self.periods = [float(p) for p in self.periods]
        if self.patch < 1 or self.recent < 0 or any(p <= 0 for p in self.periods) or self.longest <= 0:
            raise UserError("slot: patch must be >= 1, recent >= 0, periods and longest > 0")

    @property
    def answers(self) -> int:
        """Questions a token asks: a label row has this many values."""
        return self.patch

    def read(self, raw: Any) -> int | Tensor:
        """-> the horizon, or the future's values float32 [horizon] (NaN = unknown, not asked)."""
        if isinstance(raw, int) or (isinstance(raw, float) and raw.is_integer()):
            if raw < 1:
                raise UserError(f"slot: a horizon of {told(raw)} steps; it must be at least 1")
            return check_horizon(int(raw), "slot")
        given = as_numbers(raw, f"slot: {told(raw)} is neither a horizon nor future values")
        value = torch.from_numpy(np.ascontiguousarray(given)).float().view(given.shape)
        if value.ndim != 1 or len(value) == 0:
            raise UserError(f"slot: future values of shape {tuple(value.shape)}; expected [horizon], one channel")
        check_horizon(len(value), "slot")
        if value.isinf().any():
            raise UserError("slot: infinite future values; use NaN for unknown ones")
        return value

    def span(self, value: int | Tensor, rng: torch.Generator | None = None) -> Span:
        """-> data {"position": [s]}, first step of each slot after the origin (0, patch, 2 patch ...).

        All s slots are asked. labels: float [s, patch], the given z-values, NaN beyond the horizon; None
        when only the horizon is given.
        """
        horizon = value if isinstance(value, int) else len(value)
        count = -(-horizon // self.patch)
        position = torch.arange(count, dtype=torch.float32) * self.patch
        labels = None
        if not isinstance(value, int):
            labels = nn.functional.pad(value, (0, count * self.patch - horizon), value=float("nan"))
            labels = labels.view(count, self.patch)
        return Span(self.name, {"position": position}, count, asked=torch.arange(count), labels=labels)

    def remember(self, span: Span, past: Tensor) -> Span:
        """The same slots with the past's newest values in each: past [t] normalised, NaN = missing or before its start.

        Adds data "recent" [s, 2 recent] (values, observed), the newest last. Nothing when `recent` is 0.
        """
        if not self.recent:
            return span
        newest = past[-self.recent :].float()
        newest = nn.functional.pad(newest, (self.recent - len(newest), 0), value=float("nan"))
        row = torch.cat([newest.nan_to_num(), (~newest.isnan()).float()])
        return replace(span, data=span.data | {"recent": row.expand(span.length, -1)})

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.numbers.examples import slot

        return slot()

    def build(self, width: int) -> SlotTokens:
        return SlotTokens(self, width)


def check_horizon(steps: int, what: str) -> int:
    """The steps of a forecast. UserError when there are more than a sample may ask for."""
    if steps > limits().horizon:
        raise over(what, "horizon", f"a horizon of {told(steps)} steps")
    return steps


class SlotTokens(Tokenizer):
    """One learned vector + time; `unfold` turns an encoded slot into its `answers` questions."""

    def __init__(self, settings: Slot, width: int) -> None:
        super().__init__()
        self.answers = settings.answers
        self.slot = nn.Parameter(torch.randn(width) * 0.02)
        self.questions = nn.Linear(width, self.answers * width)
        self.recent = nn.Linear(2 * settings.recent, width, bias=False) if settings.recent else None
        self.time = (settings.periods, 2.0 * settings.patch, settings.longest)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"position": [N]} (and "recent": [N, 2 recent]) -> [N, width]."""
        time = step_positions(data["position"], len(self.slot), *self.time)
        x = self.slot + time.to(self.slot.dtype)
        return x if self.recent is None else x + self.recent(data["recent"].to(x.dtype))

    def unfold(self, h: Float[Tensor, "M D"]) -> Float[Tensor, "M a D"]:
        """Encoded slots [M, D] -> [M, answers, D], one query a future step."""
        return self.questions(h).unflatten(-1, (self.answers, h.shape[-1]))
