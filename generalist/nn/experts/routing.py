"""Routers of the conditional mixture of experts: which experts serve which tokens (spec 3, paper 2206.04674).

    z = W_g condition + noise        p = softmax(z)        the top k of p, renormalised to sum 1

What the condition is names the router: the token itself ("token"), the token and its sequence ("context"),
its modality ("modality"), its task ("task"), or eight attribute bits ("attribute"). The last three depend on
a row of `At.routes`, not on the token, so a layer's experts are merged once a row (see
`generalist.nn.experts.experts`).

Attribute bits: 0/1 the input holds vision/text; 2/3 the answer holds vision/text; 4/5 this token is
vision/text; 6 it belongs to an answer; 7 it attends causally. The first token of a sequence (its summary)
counts as what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.data.batch.routes import Routes
from generalist.data.batch.types import Packed
from generalist.recipe.layers import MoeSpec
from generalist.tokenizers_mod.base.tokenizer import is_plain, taken

KINDS = ("vision", "text")  # the kinds that attribute bits know (`Modality.kind`)
BITS = 8


@dataclass
class Choice:
    """Experts Int[R k] and their weights Float[R k] (rows sum to one), for R rows or tokens."""

    experts: Tensor
    weights: Tensor


@dataclass
class RouterSpec(MoeSpec):
    """What all routers share: the mixture, its width, and how many modalities and tasks the model knows."""

    width: int = 0
    modalities: int = 1
    tasks: int = 0


class Router(nn.Module):
    """Base: a linear gate without bias over a condition. noise: std * experts of the training noise on z.

    per_row: the condition is a row of the routes' table, so that equal rows choose alike.
    """

    per_row: ClassVar[bool] = False
    needs_sequence: ClassVar[bool] = False  # looks at other tokens of the sequence than the one it routes
    needs_task: ClassVar[bool] = False  # looks at the task
    needs_sides: ClassVar[bool] = False  # looks at what stands on both sides of the question

    def __init__(self, spec: RouterSpec, inputs: int = 0) -> None:
        super().__init__()
        self.top, self.noise = spec.top, spec.noise / spec.experts
        self.gate = nn.Linear(inputs or spec.width, spec.experts, bias=False)

    def condition(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "R C"]:
        """Float[R C]: a row's (or token's) condition. x: Float[N D]."""
        raise NotImplementedError(f"{type(self).__name__} must define condition")

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Choice:
        return self.choose(self.condition(x, at))

    def choose(self, condition: Tensor) -> Choice:
        """Top-k of the softmax, in float32 whatever surrounds it (a rounded gate flips experts)."""
        with torch.autocast(condition.device.type, enabled=False):
            weight = self.gate.weight
            z = (
                nn.functional.linear(condition.float(), weight.float())
                if is_plain(weight)
                else self.gate(condition.float())
            )
            if self.training and self.noise:
                z = z + torch.randn_like(z) * self.noise
            weights, experts = z.softmax(-1).topk(self.top, dim=-1)
        return Choice(experts, weights / weights.sum(-1, keepdim=True))

    @classmethod
    def table(cls, packed: Packed, kinds: dict[str, str], tasks: Sequence[str]) -> Routes | None:
        """The routes of a packed batch; None where the router needs none."""
        return None


class AttributeRouter(Router):
    """Attribute bits -> linear -> LayerNorm (-> GELU) -> gate (spec 3.3)."""

    per_row = True
    needs_sides = True

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        self.attributes = nn.Linear(BITS, spec.width)
        self.norm = nn.LayerNorm(spec.width)
        self.activation = nn.GELU() if spec.gelu else nn.Identity()

    def condition(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "R C"]:
        rows = taken(routes(at).table, self.attributes)
        return self.activation(self.norm(self.attributes(rows)))

    @classmethod
    def table(cls, packed: Packed, kinds: dict[str, str], tasks: Sequence[str]) -> Routes:
        bits = attributes(packed, kinds)
        power = 2 ** torch.arange(BITS, device=bits.device)
        codes, index = torch.unique((bits.long() * power).sum(1), return_inverse=True)
        return Routes(index, (codes.unsqueeze(1) // power % 2).long())


class ModalityRouter(Router):
    """A learned embedding of the token's modality."""

    per_row = True

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        self.embedding = nn.Embedding(spec.modalities, spec.width)

    def condition(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "R C"]:
        return self.embedding(routes(at).table.squeeze(1))

    @classmethod
    def table(cls, packed: Packed, kinds: dict[str, str], tasks: Sequence[str]) -> Routes:
        names = list(kinds)
        numbers = torch.tensor([names.index(m) for m in packed.data], device=packed.source.device)
        return Routes(packed.source, numbers.unsqueeze(1))


class TaskRouter(Router):
    """A learned embedding of the task; the mean of all where none fits the question (`generalist.model.sides` says
    so)."""

    per_row = True
    needs_task = True

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        self.embedding = nn.Embedding(max(1, spec.tasks), spec.width)

    def condition(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "R C"]:
        number = routes(at).table
        known = self.embedding(number.squeeze(1).clamp(min=0))
        return torch.where(number >= 0, known, self.embedding.weight.mean(0))

    @classmethod
    def table(cls, packed: Packed, kinds: dict[str, str], tasks: Sequence[str]) -> Routes:
        number = tasks.index(packed.role.task) if packed.role.task in tasks else -1
        row = torch.full((1, 1), number, device=packed.source.device)
        return Routes(torch.zeros_like(packed.source), row)


class TokenRouter(Router):
    """The token itself."""

    def condition(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "R C"]:
        return x


class ContextRouter(Router):
    """The token beside the mean of what every token of its sequence may see (its first block), Float[N 2D].

    A mean over the whole sequence would show a causal token its own future.
    """

    needs_sequence = True

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec, 2 * spec.width)

    def condition(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "R C"]:
        owner = torch.cat(
            [
                torch.full((g.length,), i, device=x.device)
                for i, g in enumerate(g for g in at.groups for _ in range(g.count))
            ]
        )
        seen = ((at.block == 0) & ~at.hidden).to(x.dtype).unsqueeze(1)
        count = int(owner[-1]) + 1
        sums = x.new_zeros(count, x.shape[1]).index_add_(0, owner, x * seen)
        number = x.new_zeros(count, 1).index_add_(0, owner, seen)
        return torch.cat([x, (sums / number.clamp(min=1)).index_select(0, owner)], dim=1)


ROUTERS: dict[str, type[Router]] = {
    "attribute": AttributeRouter,
    "token": TokenRouter,
    "context": ContextRouter,
    "modality": ModalityRouter,
    "task": TaskRouter,
}


def routes(at: At) -> Routes:
    """The routes of the pass; an error of the caller's where it has none."""
    if at.routes is None:
        raise ValueError("this model routes by rows; give the encoder what GeneralistModel.at(packed) gives")
    return at.routes


def attributes(packed: Packed, kinds: dict[str, str]) -> Tensor:
    """The eight bits of every token: Bool[N 8]. kinds: {modality: kind}."""
    device = packed.source.device
    role = packed.role
    of_source = torch.tensor([[kinds[m] == kind for kind in KINDS] for m in packed.data], device=device)
    own = of_source[packed.source]
    following = (packed.first + 1).clamp(max=len(own) - 1)
    alone = packed.owner[following] != packed.owner[packed.first]
    own[packed.first] = torch.where(alone.unsqueeze(1), own[packed.first], own[following])
    holds = torch.zeros(packed.sequences, len(KINDS), device=device).index_add_(0, packed.owner, own.float()) > 0
    before, other = (
        torch.tensor([kind in side for kind in KINDS], device=device).expand(len(own), -1)
        for side in (role.own, role.told)
    )
    target = torch.full((len(own), 1), role.target, device=device)
    causal = ((packed.layout.block > 0) | packed.layout.hidden).unsqueeze(1)
    mine = holds[packed.owner] | before
    sides = [other, mine] if role.target else [mine, other]
    return torch.cat([*sides, own, target, causal], dim=1)
