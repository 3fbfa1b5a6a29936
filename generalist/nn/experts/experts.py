"""Conditional mixture of experts: attention and feed-forward mixers whose linears are experts (spec 3.3).

    W = sum over the chosen experts of weight * W_e        y = x W^T + b

Where the router looks at a row of attributes and not at the token, the chosen experts are merged before use:
exactly a dense layer, at its cost. Merged weights are kept while a model in evaluation is unchanged.

Layout of the parameters of one block, E experts, width D, hidden H (the keys of a dense block, with the
experts as a leading axis, and the routers beside them):

    mixer.qkv.weight [E 3D D]   mixer.qkv.bias [E 3D]      mixer.out.weight [E D D]   mixer.out.bias [E D]
    mlp.up.weight    [E H D]    mlp.up.bias    [E H]       mlp.down.weight  [E D H]   mlp.down.bias  [E D]
    mixer.router.* decides for qkv and out, mlp.router.* for up and down, each holding
        gate.weight [E C]                          (C = D, and 2D for "context")
        attributes.{weight [D 8], bias [D]}, norm.{weight, bias} [D]               for "attribute"
        embedding.weight [modalities or tasks, D]                                  for "modality", "task"

`moe_state_dict` maps one block of the official key layout (spec 6) to this one, `official_state_dict` back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from generalist.data.batch.at import At
from generalist.data.batch.routes import Routes
from generalist.nn.experts.routing import ROUTERS, Choice, RouterSpec, routes
from generalist.nn.mixers.base import Mixer


class ExpertLinear(nn.Module):
    """E linears of one shape: weight Float[E out in], bias Float[E out]. parts: square matrices stacked in each."""

    def __init__(self, experts: int, inputs: int, outputs: int, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, every matrix of every expert on its own (spec 1.12)."""
        if vars(self.weight).get("_is_hf_initialized"):
            return  # loaded
        for expert in self.weight.data:
            for part in expert.chunk(self.parts):
                nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.bias)

    def merge(self, choice: Choice) -> tuple[Tensor, Tensor]:
        """One weight and bias a row: Float[R out in], Float[R out]."""
        w, shape = choice.weights.to(self.weight.dtype), choice.experts.shape
        chosen = self.weight.index_select(0, choice.experts.flatten()).unflatten(0, shape)
        weight = (chosen * w[..., None, None]).sum(1)
        return weight, (embedding(choice.experts, self.bias) * w[..., None]).sum(1)


@dataclass
class Rows:
    """The chosen experts of a layer merged once a row: a dense layer where all tokens have one row.

    choice: of the R rows; merged: {name of the linear: R weights Float[out in] and biases Float[out]}.
    """

    routes: Routes
    choice: Choice
    merged: dict[str, list[tuple[Tensor, Tensor]]]

    def apply(self, name: str, x: Tensor) -> Tensor:
        """x: Float[N in] -> Float[N out]."""
        merged = self.merged[name]
        if len(merged) == 1:
            return linear(x, *merged[0])
        order = self.routes.order
        parts = (x if order is None else x[order[0]]).split(self.routes.counts)
        out = torch.cat([linear(part, *m) for part, m in zip(parts, merged, strict=True)])
        return out if order is None else out[order[1]]

    def of(self, tokens: Tensor) -> Rows:
        """What is chosen for some of the tokens, Int[W]."""
        return replace(self, routes=self.routes.of(tokens))

    def row(self, name: str, x: Tensor, row: int) -> Tensor:
        """Another sequence's Float[P in] through the linear of one row."""
        return linear(x, *self.merged[name][row])

    def gates(self, experts: int) -> Tensor:
        """The weight of every expert at every token, 0 where it does not serve: Float[N E]."""
        return _gates(self.choice, experts)[self.routes.index]


@dataclass
class PerToken:
    """Every token goes through its own experts; the tokens of one expert go together."""

    choice: Choice
    linears: dict[str, ExpertLinear]

    def of(self, tokens: Tensor) -> PerToken:
        """What is chosen for some of the tokens, Int[W]."""
        chosen = Choice(self.choice.experts.index_select(0, tokens), self.choice.weights.index_select(0, tokens))
        return PerToken(chosen, self.linears)

    def apply(self, name: str, x: Tensor) -> Tensor:
        """x: Float[N in] -> Float[N out]."""
        of, k = self.linears[name], self.choice.experts.shape[1]
        flat = self.choice.experts.flatten()
        order = torch.argsort(flat, stable=True)
        counts = torch.bincount(flat, minlength=len(of.weight)).tolist()
        token = order // k
        parts = x.index_select(0, token).split(counts)
        out = torch.cat([linear(part, w, b) for part, w, b in zip(parts, of.weight, of.bias, strict=True)])
        out = out * self.choice.weights.flatten()[order].unsqueeze(1).to(out.dtype)
        return out.new_zeros(len(x), out.shape[1]).index_add_(0, token, out)

    def gates(self, experts: int) -> Tensor:
        """The weight of every expert at every token, 0 where it does not serve: Float[N E]."""
        return _gates(self.choice, experts)


def _gates(choice: Choice, experts: int) -> Tensor:
    """The weight of every expert in every row, 0 for those not chosen: Float[R E]."""
    return choice.weights.new_zeros(len(choice.weights), experts).scatter(1, choice.experts, choice.weights)


class Experts(Mixer):
    """Base of the two mixers: one router that decides for all linears of the mixer."""

    TAP: ClassVar[str] = "experts"

    def __init__(self, spec: RouterSpec, router: str) -> None:
        super().__init__()
        self.router = ROUTERS[router](spec)
        self._kept: dict[tuple[int, ...], Kept] = {}
        self._state: tuple[Any, ...] = ()

    @property
    def apart(self) -> bool:
        """Not where other tokens have a say in the choice, or every token gets noise of its own."""
        drawn = not self.router.per_row and self.training and self.router.noise > 0
        return super().apart and not self.router.needs_sequence and not drawn

    def linears(self) -> dict[str, ExpertLinear]:
        return {name: m for name, m in self.named_children() if isinstance(m, ExpertLinear)}

    def train(self, mode: bool = True) -> Experts:
        self._kept.clear()  # parameters written around autograd (`p.data`) leave no other trace
        return super().train(mode)

    def decide(self, x: Tensor, at: At) -> Rows | PerToken:
        """Which experts serve the tokens x: Float[N D]."""
        decision: Rows | PerToken
        if not self.router.per_row:
            decision = PerToken(self.router(x, at), self.linears())
        elif self.training or torch.is_grad_enabled():
            choice, merged = self._merge(x, at)
            decision = Rows(routes(at), choice, merged)
        else:
            decision = self._remembered(x, at)
        if at.taps:
            at.tap(self.TAP, decision.gates(self.router.gate.out_features))
        return decision

    def matrices(self) -> Iterator[tuple[Tensor, int]]:
        yield from super().matrices()
        yield from ((linear.weight, linear.parts * len(linear.weight)) for linear in self.linears().values())

    def _merge(self, x: Tensor, at: At) -> tuple[Choice, dict[str, list[tuple[Tensor, Tensor]]]]:
        choice = self.router(x, at)
        return choice, {n: list(zip(*m.merge(choice), strict=True)) for n, m in self.linears().items()}

    def _remembered(self, x: Tensor, at: At) -> Rows:
        """Rows met before keep their merged weights until a parameter changes."""
        found = routes(at)
        # an optimiser step or a load writes in place and counts the version up; a move changes the address
        state = tuple((p.data_ptr(), p._version) for p in self.parameters())
        if state != self._state:
            self._kept.clear()
            self._state = state
        rows = [tuple(row) for row in found.table.tolist()]
        new = [i for i, row in enumerate(rows) if row not in self._kept]
        if new:
            table = Routes(found.index[:0], found.table[new])
            choice, merged = self._merge(x, replace(at, routes=table))
            for number, i in enumerate(new):
                own = Choice(choice.experts[number], choice.weights[number])
                self._kept[rows[i]] = Kept(own, {name: m[number] for name, m in merged.items()})
        kept = [self._kept[row] for row in rows]
        choice = Choice(torch.stack([k.choice.experts for k in kept]), torch.stack([k.choice.weights for k in kept]))
        return Rows(found, choice, {name: [k.merged[name] for k in kept] for name in self.linears()})


@dataclass
class Kept:
    """One row's experts and the merged weight and bias of every linear."""

    choice: Choice
    merged: dict[str, tuple[Tensor, Tensor]]
