"""The two mixers whose linears are experts: attention and feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.data.batch.types import Group, Layout
from generalist.nn.attention.attend import attend
from generalist.nn.attention.positions.base import Position
from generalist.nn.experts.experts import ExpertLinear, Experts, PerToken
from generalist.nn.experts.routing import RouterSpec, routes
from generalist.nn.spec import Needs


class ExpertAttention(Experts):
    """Multi-head self-attention whose q, k, v and output matrices are experts chosen together."""

    narrows: ClassVar[bool] = True

    def __init__(
        self, width: int, heads: int, spec: RouterSpec, router: str, positions: Mapping[str, Position] | None = None
    ) -> None:
        super().__init__(spec, router)
        self.heads, self.width = heads, width
        self.positions = self.placed(positions)
        self.qkv = ExpertLinear(spec.experts, width, 3 * width, parts=3)
        self.out = ExpertLinear(spec.experts, width, width)

    def kept(self, tokens: int) -> int:
        return 2 * tokens * self.width

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "M D"]:
        """x: Float[N D]; at.prompts: Float[P D], already normalised like x -> Float[N D], or where `at.only`
        Float[W D].

        Prompts go with the first part of their sequence. Token routers route each prompt by itself.
        """
        chosen, prompts = self.decide(x, at), at.prompts
        q, k, v = self._split(chosen.apply("qkv", x))
        if prompts is None:
            mixed = attend(q, k, v, at, None, self.positions)
        elif isinstance(chosen, PerToken):
            _, pk, pv = self._split(self._prompts(prompts).apply("qkv", prompts))
            mixed = attend(q, k, v, at, (pk, pv), self.positions)
        else:
            row, mixed = first_rows(at), q
            if at.only:
                row, mixed = (t.index_select(0, at.asked) for t in (row, q))
            for i in row.unique().tolist():  # one, unless sequences of several kinds stand in one pass
                _, pk, pv = self._split(chosen.row("qkv", prompts, i))
                of_row = attend(q, k, v, at, (pk, pv), self.positions)
                mixed = torch.where((row == i)[:, None, None], of_row, mixed)
        if at.only:
            chosen = chosen.of(at.asked)
        return chosen.apply("out", at.tap("heads", mixed).flatten(1))

    def _split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        return qkv.view(len(qkv), 3, self.heads, -1).unbind(1)

    def _prompts(self, prompts: Tensor) -> PerToken:
        none = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)
        alone = At(Layout([Group(0, 1, len(prompts), True)], none, none.bool()))
        return PerToken(self.router(prompts, alone), self.linears())


def first_rows(at: At) -> Tensor:
    """The row of its sequence's first token, for every token: Int[N]."""
    found = routes(at)
    if found.first is not None:
        return found.first
    index = found.index
    return torch.cat(
        [index[g.start : g.start + g.count * g.length : g.length].repeat_interleave(g.length) for g in at.groups]
    )


class ExpertMLP(Experts):
    """linear - activation - linear whose two linears are experts chosen together."""

    needs = Needs(reach="token")

    def __init__(self, width: int, hidden: int, activation: nn.Module, spec: RouterSpec, router: str) -> None:
        super().__init__(spec, router)
        self.up = ExpertLinear(spec.experts, width, hidden)
        self.activation = activation
        self.down = ExpertLinear(spec.experts, hidden, width)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        chosen = self.decide(x, at)
        return chosen.apply("down", self.activation(chosen.apply("up", x)))
