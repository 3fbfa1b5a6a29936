"""Neighbouring cells of a map become one token of another width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pieces import Piece
from generalist.nn.steps.base import Step, may_change


class Merge(Step):
    """`factor` x `factor` cells of a map become one token of another width: Swin's patch merging (2103.14030, 3.1).

    A LayerNorm and a linear over the cells end to end; cells beyond an edge or masked are zeros. Every frame of a film
    is a map. Tokens without a map of two axes, and spans in which a token is asked, causal or hidden, stay as they are
    and go through a LayerNorm and a linear of their own.
    """

    def __init__(self, width: int, out: int, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise UserError(f"model: merge factor {factor}; it must be at least 1, such as 2")
        self.width, self.factor, self.side = out, factor, factor
        self.norm, self.cells = nn.LayerNorm(factor**2 * width), nn.Linear(factor**2 * width, out, bias=False)
        self.other_norm, self.other = nn.LayerNorm(width), nn.Linear(width, out, bias=False)

    def forward(self, x: Tensor, at: At) -> tuple[Tensor, At]:
        changed = [self.change(piece, len(x)) for piece in at.pieces.placed()]
        after, order = at.rebuilt([(piece, source) for piece, source, _ in changed])
        windows = torch.cat(
            [torch.empty(0, self.side**2, dtype=torch.long), *(w for *_, w in changed if w is not None)]
        )
        others = torch.cat([torch.empty(0, dtype=torch.long), *(own for _, own, w in changed if w is None)])
        made = torch.cat([self.merged(x, windows.to(x.device)), self.passed(x[others.to(x.device)])])
        # merged pieces were made first; the order is of pieces as they lie
        is_merged = torch.cat([torch.full((len(own),), w is not None) for _, own, w in changed])
        place = torch.where(is_merged, is_merged.cumsum(0) - 1, len(windows) + (~is_merged).cumsum(0) - 1)
        return made[place.to(x.device)[order]], after

    def merged(self, x: Tensor, windows: Tensor) -> Tensor:
        """The new tokens of windows Int[n cells] of tokens; len(x): a cell that is not there."""
        return self.cells(self.norm(beside_zeros(x)[windows].flatten(1)))

    def stands_for(self, windows: Tensor) -> Tensor:
        """The token that each new one stands for: the first of its cells. Int[n cells] -> Int[n]."""
        return windows.amin(1)

    def passed(self, x: Tensor) -> Tensor:
        """Tokens that stay."""
        return self.other(self.other_norm(x))

    def change(self, piece: Piece, absent: int) -> tuple[Piece, Tensor, Tensor | None]:
        """What a piece becomes, the token each of its new tokens stands for Int[n'], and their cells Int[n' side^2]
        (`absent` for those that are not there); None where it stays as it is."""
        own = torch.arange(piece.start, piece.start + piece.length)
        if not may_change(piece) or piece.shape is None:
            return piece, own, None
        count, (rows, columns) = piece.maps(2)
        cells = piece.laid_out(own, absent)
        maps, real = self.windows(cells.view(count, rows, columns), absent)
        shape = (*piece.shape[:-2], *maps.shape[1:3])
        windows, there = maps.flatten(3).flatten(0, 2), real.flatten()
        kept = None if bool(there.all()) else there.nonzero().squeeze(1)
        windows = windows[there]
        return piece._replace(length=len(windows), shape=shape, cells=kept), self.stands_for(windows), windows

    def windows(self, maps: Tensor, absent: int) -> tuple[Tensor, Tensor]:
        """Cells Int[count H W] -> those of every new token, Int[count H' W' side side], and whether it is there."""
        f = self.factor
        maps = pad(maps, (0, -maps.shape[2] % f, 0, -maps.shape[1] % f), value=absent)
        found = maps.unfold(1, f, f).unfold(2, f, f)
        return found, (found != absent).any(-1).any(-1)


def beside_zeros(x: Tensor) -> Tensor:
    """Tokens and a last row of zeros, for cells that are not there."""
    return pad(x, (0, 0, 0, 1))
