"""Where tokens stand in the grid of their span, for token mixers that turn by it (`generalist.nn.attention.rotary`).

A place is four integers, row, column, rows, columns: of a picture's patch its own and its picture's. Of a grid of
three axes, (T, H, W), the place is that within the frame. Tokens of spans without a grid of at least two axes (texts,
summaries, sets) have no place: all four are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.data.batch.types import Packed


def plane(grid: tuple[int, ...] | None) -> tuple[int, int]:
    """The rows and columns of a span's grid, (0, 0) where there are none."""
    return (0, 0) if grid is None or len(grid) < 2 else (grid[-2], grid[-1])


def cells(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """The row and column of every cell of a grid, row by row: Int[rows * columns, 2]."""
    cell = torch.arange(rows * columns, device=device)
    return torch.stack([cell // columns, cell % columns], dim=1)


def places(packed: Packed) -> Tensor:
    """The place of every token of a packed batch, Int[N 4], on its device."""
    order = list(packed.data)
    spans = sorted(zip(packed.kinds, packed.grids, strict=True), key=lambda span: order.index(span[0]))
    table = torch.tensor([[length, *plane(grid)] for _, (length, grid) in spans])
    lengths, within = table[:, 0], torch.arange(int(table[:, 0].sum()))
    within = within - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    rows, columns = table[:, 1:].repeat_interleave(lengths, dim=0).unbind(1)
    row, column = within // columns.clamp(min=1) % rows.clamp(min=1), within % columns.clamp(min=1)
    found = torch.stack([row, column, rows, columns], dim=1).to(packed.row.device)
    owned = [sum(length for kind, (length, _) in spans if kind == name) for name in order]
    starts = torch.tensor([0, *owned[:-1]], device=packed.row.device).cumsum(0)
    return found[starts[packed.source] + packed.row]
