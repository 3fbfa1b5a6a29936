"""The tokens of a map are gathered around a few learnt centres."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pieces import Piece
from generalist.nn.steps.base import Step, may_change, same_width


class Cluster(Step):
    """`tokens` tokens take the place of a map's, by one step of k-means (kMaX-DeepLab, 2207.04044, section 3.2).

        a_j = the centre m with the largest q_m . k_j        u_m = mean of v_j over a_j = m        c_m + out(u_m)

    Every token goes to one centre. As in the source the choice is hard; in its place the gradient is that of a softmax
    over the centres, since here no loss of its own teaches it, and the mean (0 of a centre that has no token) stands
    for the sum behind a batch norm, so that a sequence's numbers do not depend on its batch. A film is one map. Maps of
    no more tokens than centres, tokens without a map of two axes, and spans in which a token is asked, causal or hidden
    stay as they are. The products are shown to the taps ("cluster").
    """

    def __init__(self, width: int, out: int, tokens: int = 16) -> None:
        super().__init__()
        if tokens < 1:
            raise UserError(f"model.steps: cluster has tokens={tokens}; it must be at least 1, such as 16")
        self.width, self.tokens = same_width("cluster", width, out), tokens
        self.centres = nn.Parameter(torch.empty(tokens, width).normal_(std=width**-0.5))
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> tuple[Float[Tensor, "M D"], At]:
        pieces = at.pieces.placed()
        members = [self.members(piece) for piece in pieces]
        made = self.clusters(x, [own for own in members if own is not None], at).flatten(0, 1)
        changed, taken, next_made = [], [], len(x)
        for piece, own in zip(pieces, members, strict=True):
            if own is None:
                own = torch.arange(piece.start, piece.start + piece.length)
                taken.append(own)
            else:
                own = own[: self.tokens]  # for whom the clusters stand
                taken.append(torch.arange(next_made, next_made + self.tokens))
                next_made += self.tokens
                piece = piece._replace(length=self.tokens, shape=None, cells=None)
            changed.append((piece, own))
        after, order = at.rebuilt(changed)
        return torch.cat([x, made.to(x.dtype)]).index_select(0, torch.cat(taken).to(x.device)[order]), after

    def members(self, piece: Piece) -> Tensor | None:
        """The tokens of a piece that are gathered, None where it stays as it is."""
        if not may_change(piece):
            return None
        own = torch.arange(piece.start, piece.start + piece.length)
        own = own if piece.cells is None else own[piece.cells >= 0]
        return own if len(own) > self.tokens else None

    def clusters(self, x: Float[Tensor, "N D"], members: list[Tensor], at: At) -> Float[Tensor, "P tokens D"]:
        """The clusters of each of P maps."""
        own = self.norm(x.index_select(0, torch.cat([torch.empty(0, dtype=torch.long), *members]).to(x.device)))
        products = at.tap("cluster", self.key(own) @ self.query(self.centres).T / math.sqrt(self.width))
        soft, hard = products.softmax(-1), one_hot(products.argmax(-1), self.tokens).to(products.dtype)
        chosen = hard + (soft - soft.detach())
        sizes = [len(tokens) for tokens in members]
        parts = zip(chosen.split(sizes), hard.split(sizes), self.value(own).split(sizes), strict=True)
        means = [of.T @ value / count.sum(0).clamp(min=1).unsqueeze(1) for of, count, value in parts]
        return self.centres + self.out(torch.stack(means) if means else own.new_zeros(0, self.tokens, self.width))
