"""Where tokens stand in the grid of their span, for token mixers that turn by it (`nn.attention.positions.rotary`).

A place is six integers: row, column, rows and columns, of a picture's patch its own and its picture's; then which map
of its sequence it belongs to, counted from 0, and how many rows the maps before it have, so that two pictures of one
sequence never share a position. A grid of three axes, (T, H, W), is T maps. Tokens of spans without a grid of at least
two axes (texts, summaries, sets) have no place: all six are 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from generalist.data.batch.pieces import Pieces, cells_of


def cells(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """The row and column of every cell of a grid, row by row: Int[rows * columns, 2]."""
    cell = torch.arange(rows * columns, device=device)
    return torch.stack([cell // columns, cell % columns], dim=1)


def places(pieces: Pieces) -> Int[Tensor, "N 6"]:
    """The place of every token of a packed batch, Int[N 6], on the host."""
    own = pieces.placed()
    table, met = [], dict[int, tuple[int, int]]()  # of each sequence: its maps so far, and their rows
    for piece in own:
        planar = piece.shape is not None and len(piece.shape) > 1
        count, shape = piece.maps(2) if planar else (0, (0, 0))
        before = met.get(piece.sequence, (0, 0))
        met[piece.sequence] = before[0] + count, before[1] + count * shape[0]
        table.append((*shape, *before) if planar else (0, 0, 0, 0))
    of, cell = cells_of(own)
    rows, columns, number, above = torch.tensor(table)[of].unbind(1)
    line, column = cell.clamp(min=0) // columns.clamp(min=1), cell.clamp(min=0) % columns.clamp(min=1)
    frame = line // rows.clamp(min=1)
    found = torch.stack([line - frame * rows, column, rows, columns, number + frame, above + frame * rows], dim=1)
    return found * (rows > 0).unsqueeze(1)


def padded_places(place: Tensor | None, count: int, length: int, device: torch.device) -> Tensor:
    """Padded sequences [summary, tokens...]: Int[B n 4], row, column, rows and columns of whole maps of one size in
    order, or None where tokens have no place -> Int[B * (1 + n), 6]; the summary has none."""
    if place is None:
        return torch.zeros(count * length, 6, dtype=torch.long, device=device)
    first = (place[..., 2] > 0) & (place[..., 0] == 0) & (place[..., 1] == 0)
    number = first.long().cumsum(1) - 1
    found = torch.cat([place, torch.stack([number, number * place[..., 2]], dim=-1)], dim=-1)
    return pad(found.to(device), (0, 0, 1, 0)).flatten(0, 1)
