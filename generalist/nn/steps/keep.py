"""Tokens that matter little for the answer are left out between two layers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pieces import Piece
from generalist.nn.steps.base import Step, may_change, same_width
from generalist.recipe.layers import divides


class Keep(Step):
    """Of every map the tokens go on that an interpreter scores highest (IA-RED^2, 2106.12620, section 3).

        score_j = mean over heads of sigmoid(q . k_j / sqrt(d)),  q of the sequence's first token, both of LN(x)

    share: of a map's tokens, at least one goes on; 0: those whose score is above a half, however many they are. Tokens
    without a map of two axes, and spans in which a token is asked, causal or hidden, all go on. The scores are shown to
    the taps ("keep"), who may put decisions in their stead. In training the scores get the gradient of a factor in
    front of what goes on, which is 1.

    masked: the tokens stay where they are, seen by themselves alone and in no map, which gives those that go on the
    same numbers: for a training that draws what goes on, whose counts nobody knows beforehand. The readout must be
    "asked" then.
    """

    masked: bool = False

    def __init__(self, width: int, out: int, share: float = 0.7, interpreter_heads: int = 4) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise UserError(f"model.steps: keep has share={share}; it lies in 0..1, 0 for those scored above a half")
        divides(interpreter_heads, width)
        self.width, self.share, self.heads = same_width("keep", width, out), share, interpreter_heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> tuple[Float[Tensor, "M D"], At]:
        score = at.tap("keep", self.score(x, at))
        told = score.detach().float().cpu()
        kept = [self.kept(piece, told) for piece in at.pieces.placed()]
        if self.training:
            x = x * (1 + (score - score.detach())).to(x.dtype).unsqueeze(1)
        if self.masked:
            return x, self.hidden(at, kept)
        changed = []
        for piece, own in zip(at.pieces.placed(), kept, strict=True):
            cells = piece.cells
            if len(own) < piece.length:
                cells = (torch.arange(piece.length) if cells is None else cells)[own - piece.start]
            changed.append((piece._replace(length=len(own), cells=cells), own))
        after, order = at.rebuilt(changed)
        return x.index_select(0, torch.cat(kept).to(x.device)[order]), after

    def score(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, " N"]:
        """How much every token matters, 0..1."""
        x = self.norm(x)
        first, sequence = at.sequences
        q = self.query(x.index_select(0, first)).index_select(0, sequence)
        products = (q * self.key(x)).view(len(x), self.heads, -1).sum(-1) / math.sqrt(x.shape[1] // self.heads)
        return products.sigmoid().mean(1)

    def kept(self, piece: Piece, score: Float[Tensor, " N"]) -> Tensor:
        """The tokens of a piece that go on, in their order."""
        own = torch.arange(piece.start, piece.start + piece.length)
        if not may_change(piece):
            return own
        there = own if piece.cells is None else own[piece.cells >= 0]
        if not self.share:
            return there[score[there] > 0.5]
        count = min(len(there), max(1, round(self.share * len(there))))  # none of a map that has none left
        most = score[there].topk(count).indices
        return there[most.sort().values]

    def hidden(self, at: At, kept: list[Tensor]) -> At:
        """The same tokens, of which those that do not go on are seen by nobody else."""
        stays, pieces = torch.zeros(len(at.block), dtype=torch.bool), at.pieces.placed()
        stays[torch.cat(kept)] = True
        groups = [
            replace(g, plain=g.plain and bool(stays[g.start : g.start + g.count * g.length].all())) for g in at.groups
        ]
        after = []
        for piece in pieces:
            own = stays[piece.start : piece.start + piece.length]
            cells = torch.arange(piece.length) if piece.cells is None else piece.cells
            after.append(piece if bool(own.all()) else piece._replace(cells=cells.where(own, -1)))
        hidden = at.hidden | ~stays.to(at.hidden.device)
        return at.of(replace(at.layout, groups=groups, hidden=hidden, pieces=at.pieces.of(after)))
