"""An exponential moving average of the weights (`optimizer.ema`), which is what is looked at and saved.

    held <- d * held + (1 - d) * weights,  d = min(ema, (1 + n) / (10 + n)) after n steps

The first steps count less and less, so that the average of a short run does not begin with the random weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.recipe.recipe import Recipe


class Average:
    """The average of everything in `objective` that trains; a copy of it, on its device."""

    def __init__(self, objective: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.held = {name: p.detach().clone() for name, p in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Behind a step that moved the weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(list(self.held.values()), [p.detach() for p in self.trained.values()], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the objective has the average as its weights; they must not be trained there."""
        own = {name: p.data for name, p in self.trained.items()}
        for name, p in self.trained.items():
            p.data = self.held[name]
        try:
            yield
        finally:
            for name, p in self.trained.items():
                p.data = own[name]

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "held": self.held}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`. UserError where it is of other weights."""
        held: dict[str, Tensor] = state["held"]
        if held.keys() != self.held.keys():
            raise UserError(
                "the checkpoint's average is of other weights than those that train now; start the run anew"
            )
        self.count = int(state["count"])
        for name, value in held.items():
            self.held[name].copy_(value)


def average_of(recipe: Recipe, objective: nn.Module) -> Average | None:
    """The recipe's average, None where it asks for none. UserError where the weights are not whole on any rank."""
    if not recipe.optimizer.ema:
        return None
    if any(p.requires_grad and p.numel() == 0 for p in objective.parameters()):  # as ZeRO stage 3 leaves them
        raise UserError("optimizer.ema needs whole weights on every rank; use engine.zero_stage=2 or lower, or ema=0")
    return Average(objective, recipe.optimizer.ema)
