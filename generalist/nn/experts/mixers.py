"""The two mixers whose linears are experts: attention and feed-forward."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Group, Layout
from generalist.nn.attention.attend import attend
from generalist.nn.attention.cached import StepLayout
from generalist.nn.attention.parts import Part
from generalist.nn.experts.experts import ExpertLinear, Experts, PerToken
from generalist.nn.experts.routing import RouterSpec, routes


class ExpertAttention(Experts):
    """Multi-head self-attention whose q, k, v and output matrices are experts chosen together."""

    needs_grid: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    causal: ClassVar[bool] = True

    def __init__(self, width: int, heads: int, spec: RouterSpec, router: str) -> None:
        super().__init__(spec, router)
        self.heads = heads
        self.config: Any = None  # the model's, set by the block: its attention implementation may change later
        self.qkv = ExpertLinear(spec.experts, width, 3 * width, parts=3)
        self.out = ExpertLinear(spec.experts, width, width)

    def forward(self, x: Tensor, layout: Layout, parts: list[Part], prompts: Tensor | None = None) -> Tensor:
        """x: Float[N D]; prompts: Float[P D], already normalised like x -> Float[N D].

        Prompts go with the first part of their sequence. Token routers route each prompt by itself.
        """
        chosen = self.decide(x, layout)
        q, k, v = self._split(chosen.apply("qkv", x))
        implementation = getattr(self.config, "_attn_implementation", None)
        if prompts is None:
            mixed = attend(q, k, v, layout, parts, None, implementation)
        elif isinstance(chosen, PerToken):
            _, pk, pv = self._split(self._prompts(prompts).apply("qkv", prompts))
            mixed = attend(q, k, v, layout, parts, (pk, pv), implementation)
        else:
            row = first_rows(layout)
            different = row.unique().tolist()  # one, unless sequences of several kinds stand in one pass
            if len(different) > 1 and isinstance(layout, StepLayout):
                raise UserError("with deep prompts and experts, answers are written for one kind of input at a time")
            mixed = q
            for i in different:
                _, pk, pv = self._split(chosen.row("qkv", prompts, i))
                of_row = attend(q, k, v, layout, parts, (pk, pv), implementation)
                mixed = torch.where((row == i)[:, None, None], of_row, mixed)
        return chosen.apply("out", mixed.reshape(len(x), -1))

    def _split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        return qkv.view(len(qkv), 3, self.heads, -1).unbind(1)

    def _prompts(self, prompts: Tensor) -> PerToken:
        none = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)
        alone = Layout([Group(0, 1, len(prompts), True)], none, none.bool())
        return PerToken(self.router(prompts, alone), self.linears())


def first_rows(layout: Layout) -> Tensor:
    """The row of its sequence's first token, for every token: Int[N]."""
    found = routes(layout)
    if found.first is not None:
        return found.first
    index = found.index
    return torch.cat(
        [index[g.start : g.start + g.count * g.length : g.length].repeat_interleave(g.length) for g in layout.groups]
    )


class ExpertMLP(Experts):
    """linear - activation - linear whose two linears are experts chosen together."""

    needs_layout: ClassVar[bool] = True

    def __init__(self, width: int, hidden: int, activation: nn.Module, spec: RouterSpec, router: str) -> None:
        super().__init__(spec, router)
        self.up = ExpertLinear(spec.experts, width, hidden)
        self.activation = activation
        self.down = ExpertLinear(spec.experts, hidden, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        chosen = self.decide(x, layout)
        return chosen.apply("down", self.activation(chosen.apply("up", x)))
