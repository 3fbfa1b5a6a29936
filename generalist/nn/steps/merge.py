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
        self.width, self.factor = out, factor
        self.norm, self.cells = nn.LayerNorm(factor**2 * width), nn.Linear(factor**2 * width, out, bias=False)
        self.other_norm, self.other = nn.LayerNorm(width), nn.Linear(width, out, bias=False)

    def forward(self, x: Tensor, at: At) -> tuple[Tensor, At]:
        changed = [self.change(piece, len(x)) for piece in at.pieces.placed()]
        after, order = at.rebuilt([(piece, source) for piece, source, _ in changed])
        windows = torch.cat(
            [torch.empty(0, self.factor**2, dtype=torch.long), *(w for *_, w in changed if w is not None)]
        )
        others = torch.cat([torch.empty(0, dtype=torch.long), *(own for _, own, w in changed if w is None)])
        rows = pad(x, (0, 0, 0, 1))  # a last row of zeros, for cells that are not there
        merged = self.cells(self.norm(rows[windows.to(x.device)].flatten(1)))
        made = torch.cat([merged, self.other(self.other_norm(x[others.to(x.device)]))])
        # merged pieces were made first; the order is of pieces as they lie
        is_merged = torch.cat([torch.full((len(own),), w is not None) for _, own, w in changed])
        place = torch.where(is_merged, is_merged.cumsum(0) - 1, len(windows) + (~is_merged).cumsum(0) - 1)
        return made[place.to(x.device)[order]], after

    def change(self, piece: Piece, absent: int) -> tuple[Piece, Tensor, Tensor | None]:
        """What a piece becomes, the token each of its new tokens stands for Int[n'], and their cells Int[n' factor^2]
        (`absent` for those that are not there); None where it stays as it is."""
        own = torch.arange(piece.start, piece.start + piece.length)
        if not may_change(piece) or piece.shape is None:
            return piece, own, None
        count, (rows, columns) = piece.maps(2)
        cells = piece.laid_out(own, absent)
        f = self.factor
        maps = pad(cells.view(count, rows, columns), (0, -columns % f, 0, -rows % f), value=absent)
        windows = maps.unfold(1, f, f).unfold(2, f, f)  # [count rows' columns' f f]
        shape = (*piece.shape[:-2], *windows.shape[1:3])
        windows = windows.flatten(3).flatten(0, 2)
        real = (windows != absent).any(1)
        kept = None if bool(real.all()) else real.nonzero().squeeze(1)
        windows = windows[real]
        return piece._replace(length=len(windows), shape=shape, cells=kept), windows.amin(1), windows
