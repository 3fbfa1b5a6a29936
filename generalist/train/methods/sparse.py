"""Attention that leans on few keys: a term in the loss, after which pruning costs less (Sparse then Prune, 2307.11988).

    loss = law + weight * mean( ln(1 + A^2) )        A: attention weights of all heads, queries and keys

of the last layer (as the authors' code has it) or of all. The weights come from the kernel that has them ("eager"),
through a tap; padded keys do not occur, since every group of equal lengths is a call of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.model.objective import Objective
from generalist.model.ranked import Ranked
from generalist.nn.mixers.attention import Attention
from generalist.recipe.recipe import Recipe


class Sparse:
    """The method of `model.sparsity`; in evaluation it does nothing."""

    name = "sparse"

    def prepare(self, objective: Objective, recipe: Recipe) -> None:
        model, spec = objective.model, recipe.model
        if recipe.engine.activation_checkpointing or recipe.engine.compile:
            raise UserError(
                "model.sparsity looks at attention weights as they are made; set engine.activation_checkpointing=false "
                "and engine.compile=false"
            )
        names = [name for name, module in model.encoder.named_modules() if isinstance(module, Attention)]
        if not names:
            raise UserError("model.sparsity is of attention weights, and no layer has any; set model.sparsity=0")
        chosen = names if spec.sparsity_layers == "all" else names[-1:]
        self.weight, self.layers = spec.sparsity, {f"{name}.weights" for name in chosen}
        self.seen: list[tuple[Tensor, int]] = []
        self.model = model
        model.config._attn_implementation = "eager"
        model.taps = (*model.taps, self)

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        """The tap: the sum of a part's terms, and how many."""
        if self.model.training and name in self.layers:
            self.seen.append((x.square().log1p().sum(), x.numel()))
        return x

    def loss(self, ranked: Ranked) -> Tensor | None:
        seen, self.seen = self.seen, []
        if not seen:
            return None
        mean = torch.stack([total for total, _ in seen]).sum() / sum(count for _, count in seen)
        return (self.weight * ranked.real.sum() * mean).reshape(1)

    def after(self, step: int, applied: bool) -> None:
        """Nothing: it has no state."""

    def about(self) -> dict[str, Any]:
        return {"weight": self.weight, "layers": sorted(self.layers)}
