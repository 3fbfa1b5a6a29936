"""The default token mixer: multi-head self-attention."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from generalist.data.batch.types import Layout
from generalist.nn.attention.attend import attend
from generalist.nn.attention.parts import Part
from generalist.nn.attention.relative import RelativeBias


class Attention(nn.Module):
    """Multi-head self-attention with one fused q, k, v matrix (1706.03762, section 3.2)."""

    needs_grid: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    causal: ClassVar[bool] = True
    stacked: ClassVar[dict[str, int]] = {"qkv": 3}

    def __init__(self, width: int, heads: int, norm: float | None = None, relative: int = 0) -> None:
        """norm: epsilon of a LayerNorm of all heads' outputs together, in front of `out`; None for no such norm.

        relative: hidden width of the MLP of relative positions, 0 for none.
        """
        super().__init__()
        self.heads = heads
        self.config: Any = None  # the model's, set by the block: its attention implementation may change later
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.relative = RelativeBias(heads, relative) if relative else None
        self.norm = None if norm is None else nn.LayerNorm(width, eps=norm)

    def forward(self, x: Tensor, layout: Layout, parts: list[Part], prompts: Tensor | None = None) -> Tensor:
        """x: Float[N D]; prompts: Float[P D], already normalised like x -> Float[N D]."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        extra = None
        if prompts is not None:
            _, pk, pv = self.qkv(prompts).view(len(prompts), 3, self.heads, -1).unbind(1)
            extra = (pk, pv)
        implementation = getattr(self.config, "_attn_implementation", None)
        bias = None if self.relative is None or layout.offsets is None else self.relative(layout.offsets.steps)
        mixed = attend(q, k, v, layout, parts, extra, implementation, bias).reshape(x.shape[0], -1)
        return self.out(mixed if self.norm is None else self.norm(mixed))
