"""Elastic training: a step trains a smaller network within the model, the first heads and hidden units of each layer.

Source: the supernet of ViT-ResNAS (2111.10493, section 3.2). A step draws for every layer's mixers a share of SHARES;
the units behind it are silent, of inputs and candidates alike; one step in FULL trains the whole. Afterwards the first
units are those that matter, and `generalist compress --method search:0.5` finds a network among them. All samples of a
step share the draw, which is made of torch's own random numbers, so that a resumed run draws what the whole one draws.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.model.objective import Objective
from generalist.model.ranked import Ranked
from generalist.nn.mixers.base import Mixer, Units
from generalist.recipe.recipe import Recipe

SHARES = (0.25, 0.5, 0.75, 1.0)
FULL = 4


class Elastic:
    """The method of `model.elastic`; in evaluation the model is whole."""

    name = "elastic"

    def prepare(self, objective: Objective, recipe: Recipe) -> None:
        self.model = objective.model
        self.units: list[Units] = [
            module.units
            for module in self.model.encoder.modules()
            if isinstance(module, Mixer) and module.units is not None
        ]
        if not self.units:
            raise UserError("model.elastic: no layer has heads or hidden units that can be left out; set it to false")
        self.kept: list[int] | None = None
        for number, units in enumerate(self.units):
            units.out.register_forward_pre_hook(partial(self.silenced, number))

    def silenced(self, number: int, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """What enters the last linear of a mixer, zero for the units that this step leaves out."""
        if not self.model.training:
            return None
        if self.kept is None:
            self.kept = self.drawn()
        units, x = self.units[number], given[0]
        first = self.kept[number] * (units.out.in_features // units.count)
        return (x * (torch.arange(x.shape[-1], device=x.device) < first).to(x.dtype),)

    def drawn(self) -> list[int]:
        """How many units of every mixer this step has."""
        if int(torch.randint(FULL, ())) == 0:
            return [units.count for units in self.units]
        chosen = torch.randint(len(SHARES), (len(self.units),)).tolist()
        return [max(1, round(SHARES[i] * units.count)) for i, units in zip(chosen, self.units, strict=True)]

    def loss(self, ranked: Ranked) -> Tensor | None:
        self.kept = None  # the next step draws anew
        return None

    def after(self, step: int, applied: bool) -> None:
        """Nothing: it has no state."""

    def about(self) -> dict[str, Any]:
        return {"parts": len(self.units)}
