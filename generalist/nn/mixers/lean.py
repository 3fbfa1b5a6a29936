"""Token mixers with less than attention has: none of it, a gate, or attention with some of its matrices left out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.nn.attention.attend import attend
from generalist.nn.attention.positions.base import Position
from generalist.nn.mixers.base import Mixer
from generalist.nn.spec import Needs

QK = ("separate", "shared", "collapsed", "cholesky")
VO = ("full", "none")


class Identity(Mixer):
    """Every token as it is: MetaFormer's lower bound (2210.13452, section 3.1)."""

    needs = Needs(reach="token")

    def __init__(self, width: int, heads: int, norm: float | None = None) -> None:
        """norm: of no use, as there is no linear."""
        super().__init__()

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        return x


class Activator(Mixer):
    """W3( LN(GELU(W1 x)) * LN(W2 x) ), one LayerNorm for both: a gate instead of attention (2405.15953, section 3).

    It mixes no tokens, so another mixer must. The published block has one LayerNorm in front of this and of its
    channel mixer; here they are two.
    """

    needs = Needs(reach="token")

    def __init__(self, width: int, heads: int, inner: int = 0, norm: float | None = None) -> None:
        """inner: width of the two branches, 0 for twice the tokens'. norm: of a LayerNorm in front of the last linear.

        heads are of no use."""
        super().__init__()
        inner = inner or 2 * width
        if inner < 1:
            raise UserError(f"activator: inner={inner}; give a width of at least 1, or 0 for twice the tokens'")
        self.proj_1, self.proj_2 = nn.Linear(width, inner), nn.Linear(width, inner)
        self.proj_3 = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(inner)
        self.last = None if norm is None else nn.LayerNorm(inner, eps=norm)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        gated = self.norm(gelu(self.proj_1(x))) * self.norm(self.proj_2(x))
        return self.proj_3(gated if self.last is None else self.last(gated))


class MinimalAttention(Mixer):
    """Attention without some of its matrices ("Reducing the Transformer Architecture to a Minimum", 2410.13732).

    From the paper's description, not compared with the authors' code. qk: "separate" queries and keys; "shared", one
    matrix for both; "collapsed", one head whose scores are x W x^T; "cholesky", one head of scores x T T^T x^T, T lower
    triangular. vo: "full" values and an output matrix, or "none": every head gives a mean of its tokens' own channels.
    Without biases. Scores are divided by the root of a head's width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        qk: str = "separate",
        vo: str = "full",
        norm: float | None = None,
        positions: Mapping[str, Position] | None = None,
    ) -> None:
        """norm: epsilon of a LayerNorm in front of `out`, where there is one. positions: as attention's."""
        super().__init__()
        for name, value, valid in (("qk", qk, QK), ("vo", vo, VO)):
            if value not in valid:
                raise UserError(f"minimal_attention: {name} {value!r}; it is {', '.join(valid[:-1])} or {valid[-1]}")
        if qk in ("collapsed", "cholesky") and heads != 1:
            raise UserError(f"minimal_attention: qk={qk} is of one head, not {heads}; set model.heads=1")
        self.heads, self.qk, self.width = heads, qk, width
        self.positions = self.placed(positions)
        self.q = None if qk == "cholesky" else nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False) if qk == "separate" else None
        self.v = nn.Linear(width, width, bias=False) if vo == "full" else None
        self.out = nn.Linear(width, width, bias=False) if vo == "full" else None
        self.norm = nn.LayerNorm(width, eps=norm) if vo == "full" and norm is not None else None
        self.triangle: nn.Parameter | None = None
        if qk == "cholesky":  # rows of the lower triangle, one after the other
            self.triangle = nn.Parameter(torch.randn(width * (width + 1) // 2) * width**-0.5)

    def scored(self, x: Float[Tensor, "N D"]) -> tuple[Tensor, Tensor]:
        """What of tokens is compared: queries and keys Float[N D]."""
        if self.triangle is not None:
            width = x.shape[-1]
            lower = torch.tril_indices(width, width, device=x.device)
            root = self.triangle.new_zeros(width, width).index_put((lower[0], lower[1]), self.triangle)
            x = x @ root.to(x.dtype)
            return x, x
        assert self.q is not None
        q = self.q(x)
        return q, self.k(x) if self.k is not None else x if self.qk == "collapsed" else q

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in self.parts(x))
        extra = None
        if at.prompts is not None:
            _, pk, pv = (t.unflatten(-1, (self.heads, -1)) for t in self.parts(at.prompts))
            extra = (pk, pv)
        mixed = at.tap("heads", attend(q, k, v, at, extra, self.positions)).reshape(x.shape[0], -1)
        if self.out is None:
            return mixed
        return self.out(mixed if self.norm is None else self.norm(mixed))

    def kept(self, tokens: int) -> int:
        return 2 * tokens * self.width

    def parts(self, x: Float[Tensor, "N D"]) -> tuple[Tensor, Tensor, Tensor]:
        return *self.scored(x), x if self.v is None else self.v(x)
