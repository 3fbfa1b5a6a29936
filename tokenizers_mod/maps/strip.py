"""Strip self-attention (S2AFormer, 2025): few channels a head for who looks at whom, fewer cells to look at.

From the paper's description, not compared with the authors' code. Queries of every cell and keys of a reduced map have
`strip` channels a head, values keep the full width: a score costs `strip` products instead of width / heads.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.maps.base import MapOperator, kept


class Strip(MapOperator):
    """softmax(q k^T / sqrt(strip)) v over one map; keys and values of x itself (reduce 1, and every line of tokens) or
    of LayerNorm(depthwise reduce x reduce convolution of stride reduce (x)); what lies beyond an edge is zeros."""

    def __init__(self, width: int, heads: int, reduce: int = 1, strip: int = 1) -> None:
        super().__init__()
        if reduce < 1 or strip < 1:
            raise UserError(f"strip: reduce {reduce}, strip {strip}; both are at least 1")
        self.heads, self.factor = heads, reduce
        self.q, self.k = nn.Linear(width, heads * strip), nn.Linear(width, heads * strip)
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)
        less = reduce > 1
        self.reduce: nn.Module = nn.Conv2d(width, width, reduce, reduce, groups=width) if less else nn.Identity()
        self.norm: nn.Module = nn.LayerNorm(width) if less else nn.Identity()

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        x = kept(x, real)
        keys, seen = x.flatten(1, 2), None if real is None else real.flatten(1)
        if self.factor > 1 and min(x.shape[1:3]) > 1:
            keys, seen = self.reduced(x, real)
        q, k, v = (self.split(t) for t in (self.q(x.flatten(1, 2)), self.k(keys), self.v(keys)))
        mask = None if seen is None else seen[:, None, None, :]
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2)).view_as(x)

    def reduced(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The smaller map Float[G m D], and which of its cells hold any real one."""
        f = self.factor
        edge = (0, -x.shape[2] % f, 0, -x.shape[1] % f)
        small = self.reduce(pad(x.permute(0, 3, 1, 2), edge)).flatten(2).transpose(1, 2)
        if real is None:
            return self.norm(small), None
        there = pad(real, edge).unfold(1, f, f).unfold(2, f, f).flatten(3).any(-1)
        return self.norm(small), there.flatten(1)

    def split(self, t: Float[Tensor, "G n hd"]) -> Float[Tensor, "G h n d"]:
        return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
