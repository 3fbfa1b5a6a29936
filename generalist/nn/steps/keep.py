"""Tokens that matter little for the answer are left out between two layers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
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
        stays = self.stays(score.detach().float().cpu(), at)
        if self.training:
            x = x * (1 + (score - score.detach())).to(x.dtype).unsqueeze(1)
        if self.masked:
            return x, self.hidden(at, stays)
        piece, cell = at.cells
        kept = stays.nonzero().squeeze(1)
        counts = piece[kept].bincount(minlength=len(at.placed)).tolist()
        parts = zip(at.placed, counts, cell[kept].split(counts), kept.split(counts), strict=True)
        changed = [
            (old if old.length == count else old._replace(length=count, cells=cells), own)
            for old, count, cells, own in parts
        ]
        after, order = at.rebuilt(changed)
        return x.index_select(0, kept.to(x.device)[order]), after

    def score(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, " N"]:
        """How much every token matters, 0..1."""
        x = self.norm(x)
        q = self.query(x.index_select(0, at.sequences[0]))
        # a row a head, with zeros where the others are, and the keys' matrix taken to the queries, of which there is
        # one a sequence: q . (W x + b) = (W^T q) . x + q . b, and no key a token is made
        own = torch.eye(self.heads, dtype=q.dtype, device=q.device).repeat_interleave(x.shape[1] // self.heads, 1)
        rows = q.unsqueeze(1) * own / math.sqrt(x.shape[1] // self.heads)
        turned, shift = rows @ self.key.weight, rows @ self.key.bias
        parts, sequence = [], 0
        for g in at.groups:
            tokens = x[g.start : g.start + g.count * g.length].view(g.count, g.length, -1)
            mine = slice(sequence, sequence + g.count)
            products = turned[mine] @ tokens.transpose(1, 2) + shift[mine].unsqueeze(2)
            parts.append(products.sigmoid().mean(1).flatten())
            sequence += g.count
        return torch.cat(parts)

    def stays(self, score: Float[Tensor, " N"], at: At) -> Bool[Tensor, " N"]:
        """Whether a token goes on."""
        piece, cell = at.cells
        fixed = ~torch.tensor([may_change(one) for one in at.placed])[piece]
        there = ~fixed & (cell >= 0)  # none of a map that has none left
        if not self.share:
            return fixed | (there & (score > 0.5))
        own = there.nonzero().squeeze(1)
        count = piece[own].bincount(minlength=len(at.placed))
        for n in set(count.tolist()) - {0}:  # maps of as many tokens together
            index = own[(count == n)[piece[own]]].view(-1, n)
            most = score[index].topk(max(1, round(self.share * n)), sorted=False).indices
            fixed[index.gather(1, most)] = True
        return fixed

    def hidden(self, at: At, stays: Bool[Tensor, " N"]) -> At:
        """The same tokens, of which those that do not go on are seen by nobody else."""
        groups = [
            replace(g, plain=g.plain and bool(stays[g.start : g.start + g.count * g.length].all())) for g in at.groups
        ]
        lengths = [piece.length for piece in at.placed]
        parts = zip(at.placed, stays.split(lengths), at.cells[1].where(stays, -1).split(lengths), strict=True)
        after = [piece if bool(own.all()) else piece._replace(cells=cells) for piece, own, cells in parts]
        hidden = at.hidden | ~stays.to(at.hidden.device)
        return at.of(replace(at.layout, groups=groups, hidden=hidden, pieces=at.pieces.of(after)))
