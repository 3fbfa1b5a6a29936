"""Position tables of official Uni-Perceiver files: the grid that one is of, and how it is brought to another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.convert.report import Report
from generalist.convert.uni_perceiver import keys
from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.vision.films.frames import Sides, sides_of, spatial_table

RELEASED = (1.0, 160 / 224, 160 / 384)  # coordinate scales of the published tables


def arrange(
    official: dict[str, Tensor], report: Report, size: int | list[int], frames: int, how: str
) -> tuple[int | list[int], float]:
    """Bring the tables to `size` and `frames` (0 = the file's) -> (size of a frame, coordinate scale, 0 = 160 / size).

    how: "formula" computes another spatial table (the official default), "interpolate" resizes the file's bilinearly.
    The temporal table is resized linearly.
    """
    patch, table, temporal = official[keys.CONV].shape[-1], official[keys.SPATIAL], official[keys.TEMPORAL]
    wanted = None
    if size:
        sides = sides_of(size, "--size")
        if any(side % patch for side in sides):
            raise UserError(f"--size {size} is not a multiple of the patch, {patch}; give whole patches")
        wanted = (sides[0] // patch, sides[1] // patch)
    grid, scale = grid_of(table, patch, report, wanted)
    if wanted is not None and wanted != grid:
        if how == "formula":
            scale = 0.0
            official[keys.SPATIAL] = spatial_table(wanted, table.shape[1], 160 / (patch * max(wanted)))
        else:
            cells = table.float().T.reshape(1, -1, *grid)
            resized = interpolate(cells, wanted, mode="bilinear", align_corners=False)
            official[keys.SPATIAL] = resized.reshape(table.shape[1], -1).T.to(table.dtype).contiguous()
        report.reshaped.append(f"{keys.SPATIAL}: {grid[0]} x {grid[1]} -> {wanted[0]} x {wanted[1]} ({how})")
        grid = wanted
    if frames and frames != len(temporal):
        resized = interpolate(temporal.float().T[None], frames, mode="linear", align_corners=False)
        official[keys.TEMPORAL] = resized[0].T.to(temporal.dtype).contiguous()
        report.reshaped.append(f"{keys.TEMPORAL}: {len(temporal)} -> {frames} frames (linear)")
    sides = (grid[0] * patch, grid[1] * patch)
    return (sides[0] if sides[0] == sides[1] else list(sides)), scale


def grid_of(table: Tensor, patch: int, report: Report, wanted: Sides | None = None) -> tuple[Sides, float]:
    """The rows and columns of a spatial table, and its coordinate scale (0 = 160 / size, or a table of another kind).

    A sine-cosine table shows its grid. Another is square where its rows allow it, else `wanted`; what is left is taken
    as nearly square as it can be, which the report says.
    """
    count, width = table.shape
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    close = 1e-4 if table.dtype in (torch.float32, torch.float64) else 1e-2
    for grid in sorted(grids, key=lambda g: abs(g[0] - g[1])):
        default = 160 / (patch * max(grid))
        for scale in (default, *RELEASED, _read_scale(table.float(), grid)) if width % 4 == 0 else ():
            if torch.allclose(spatial_table(grid, width, scale), table.float(), atol=close):
                return grid, 0.0 if scale == default else scale
    square = round(count**0.5)
    if square * square == count:
        return (square, square), 0.0
    if wanted is not None and wanted[0] * wanted[1] == count:
        return wanted, 0.0
    grid = min((g for g in grids if g[0] <= g[1]), key=lambda g: g[1] - g[0])
    report.notes.append(
        f"the {count} places of the spatial table are taken for {grid[0]} rows of {grid[1]}: no sine-cosine table says "
        f"so (--size HEIGHTxWIDTH)"
    )
    return grid, 0.0


def _read_scale(table: Tensor, grid: Sides) -> float:
    """The coordinate scale by the slowest wave of the second cell, were the table a sine-cosine one of this grid."""
    q = table.shape[1] // 4
    if grid[1] > 1:
        sine, cosine = table[1, 3 * q - 1], table[1, 4 * q - 1]
    elif grid[0] > 1:
        sine, cosine = table[1, q - 1], table[1, 2 * q - 1]
    else:
        return 0.0
    return float(torch.atan2(sine, cosine)) * 10000 ** ((q - 1) / q)
