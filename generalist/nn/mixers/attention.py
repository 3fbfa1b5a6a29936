"""The default token mixer: multi-head self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.attention.attend import attend
from generalist.nn.attention.positions.base import Position
from generalist.nn.mixers.base import Mixer


class Attention(Mixer):
    """Multi-head self-attention with one fused q, k, v matrix (1706.03762, section 3.2)."""

    narrows: ClassVar[bool] = True
    stacked: ClassVar[dict[str, int]] = {"qkv": 3}

    def __init__(
        self, width: int, heads: int, norm: float | None = None, positions: Mapping[str, Position] | None = None
    ) -> None:
        """norm: epsilon of a LayerNorm of all heads' outputs together, in front of `out`; None for no such norm.

        positions: by the names of their kinds, which begin the names of their tensors.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.positions = self.placed(positions)
        self.norm = None if norm is None else nn.LayerNorm(width, eps=norm)

    def forward(self, x: Tensor, at: At) -> Tensor:
        """x: Float[N D]; at.prompts: Float[P D], already normalised like x -> Float[N D], or where `at.only` Float[W D]
        of the tokens asked."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        extra = None
        if at.prompts is not None:
            _, pk, pv = self.qkv(at.prompts).view(len(at.prompts), 3, self.heads, -1).unbind(1)
            extra = (pk, pv)
        mixed = at.tap("heads", attend(q, k, v, at, extra, self.positions)).flatten(1)
        return self.out(mixed if self.norm is None else self.norm(mixed))
