"""The default token mixer: multi-head self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.attention.attend import attend
from generalist.nn.attention.local import LocalValues
from generalist.nn.attention.positions.base import Position
from generalist.nn.attention.positions.decay import Decay
from generalist.nn.mixers.base import Mixer, Units, of_columns, of_rows, under


class Attention(Mixer):
    """Multi-head self-attention with one fused q, k, v matrix (1706.03762, section 3.2)."""

    narrows: ClassVar[bool] = True
    stacked: ClassVar[dict[str, int]] = {"qkv": 3}

    def __init__(
        self,
        width: int,
        heads: int,
        norm: float | None = None,
        positions: Mapping[str, Position] | None = None,
        head_dim: int = 0,
        local: int = 0,
        local_shared: bool = False,
    ) -> None:
        """norm: epsilon of a LayerNorm of all heads' outputs together, in front of `out`; None for no such norm.

        positions: by the names of their kinds, which begin the names of their tensors. head_dim: width of a head,
        0 = width / heads. local, local_shared: side of a convolution of the values on their maps, 0 for none, and
        whether heads share it (`generalist.nn.attention.local`).
        """
        super().__init__()
        self.heads = heads
        inner = heads * head_dim or width
        self.qkv = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)
        self.positions = self.placed(positions)
        self.norm = None if norm is None else nn.LayerNorm(inner, eps=norm)
        self.local = LocalValues(inner // heads, heads, local, local_shared) if local else None

    def forward(self, x: Tensor, at: At) -> Tensor:
        """x: Float[N D]; at.prompts: Float[P D], already normalised like x -> Float[N D], or where `at.only` Float[W D]
        of the tokens asked."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        extra = None
        if at.prompts is not None:
            _, pk, pv = self.qkv(at.prompts).view(len(at.prompts), 3, self.heads, -1).unbind(1)
            extra = (pk, pv)
        mixed = at.tap("heads", attend(q, k, v, at, extra, self.positions)).flatten(1)
        if self.local is not None and not at.writes:
            near = self.local(v.flatten(1), at)
            mixed = mixed + (near.index_select(0, at.asked) if at.only else near)
        return self.out(mixed if self.norm is None else self.norm(mixed))

    @property
    def units(self) -> Units | None:
        """Its heads. A norm of all of them together would be another without some."""
        whole = self.norm is not None or any(p.of_heads(torch.arange(1)) is None for p in self.positions)
        return None if whole else Units("heads", self.heads, self.out)

    def cut(self, kept: Tensor) -> dict[str, Tensor]:
        width = self.out.in_features // self.heads
        channels = (kept.unsqueeze(1) * width + torch.arange(width)).flatten()
        rows = (torch.arange(3).unsqueeze(1) * self.out.in_features + channels).flatten()
        found = under(qkv=of_rows(self.qkv, rows), out=of_columns(self.out, channels))
        if self.local is not None:
            found |= under(local=self.local.of_heads(kept, width))
        named = {name: part for name, part in self.named_children() if isinstance(part, Position)}
        return found | under(**{name: part.of_heads(kept) or {} for name, part in named.items()})

    def kept(self, tokens: int) -> int:
        return 2 * tokens * self.out.in_features


class DecayAttention(Attention):
    """RMT's Manhattan attention among all tokens of a sequence: attention with the position "decay" and a local term.

    On one map alone it is the authors' whole form (`generalist.tokenizers_mod.maps.decay`); tokens without a map stand
    at distance 0 from all.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        norm: float | None = None,
        positions: Mapping[str, Position] | None = None,
        head_dim: int = 0,
        local: int = 5,
        local_shared: bool = False,
        initial: float = 2.0,
        span: float = 4.0,
    ) -> None:
        """initial, span: gamma_h = 1 - 2^-(initial + span h / heads)."""
        own = Decay(head_dim or width // heads, heads, initial, span)
        super().__init__(width, heads, norm, {"decay": own, **(positions or {})}, head_dim, local, local_shared)
