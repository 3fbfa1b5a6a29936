"""The maps of a padded batch: what `At.grids` finds in pieces, out of padded tensors."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from generalist.data.batch.at import Grid


def plane_grids(place: Int[Tensor, "B n 4"], real: Bool[Tensor, "B n"] | None, length: int) -> list[Grid]:
    """Maps of two axes of rows [summary, n tokens] of `length` tokens. place: row, column, rows and columns, whole maps
    in order."""
    row, column, rows, columns = place.unbind(-1)
    number = ((rows > 0) & (row == 0) & (column == 0)).long().cumsum(1) - 1
    there = (row < rows) & (column < columns) & (number >= 0)
    there = there if real is None else there & real
    sequence, token = there.nonzero().unbind(1)
    own = [t[there] for t in (row, column, rows, columns, number)]
    found = []
    for shape in torch.stack(own[2:4], dim=1).unique(dim=0).tolist():
        mine = (own[2] == shape[0]) & (own[3] == shape[1])
        maps, which = torch.stack([sequence[mine], own[4][mine]], dim=1).unique(dim=0, return_inverse=True)
        index = torch.full((len(maps), shape[0] * shape[1]), -1, device=place.device)
        index[which, own[0][mine] * shape[1] + own[1][mine]] = sequence[mine] * length + 1 + token[mine]
        found.append(grid(tuple(shape), index))
    return found


def line_grids(real: Bool[Tensor, "B n"], length: int) -> list[Grid]:
    """Maps of one row: the tokens of every row up to its last real one."""
    count = real.shape[1]
    last = (real * torch.arange(1, count + 1, device=real.device)).amax(1)
    found = []
    for n in last.unique().tolist():
        if n:
            own = (last == n).nonzero().squeeze(1)
            index = own.unsqueeze(1) * length + 1 + torch.arange(n, device=real.device)
            found.append(grid((1, n), index.where(real[own, :n], -1)))
    return found


def grid(shape: tuple[int, ...], index: Int[Tensor, "count cells"]) -> Grid:
    """index: -1 where a cell has no token."""
    real = index >= 0
    return Grid(shape, index.clamp(min=0), None if bool(real.all()) else real)
