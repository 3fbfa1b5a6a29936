"""Pictures and clips brought to one height and width, and the fixed table of places in their grid of patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError

Sides = tuple[int, int]  # height, width


def sides_of(size: int | Sequence[int], name: str) -> Sides:
    """A setting `size`, one number or [height, width], as the two. UserError for anything else."""
    found = [size, size] if isinstance(size, int) else list(size)
    if len(found) != 2 or not all(isinstance(side, int) and side > 0 for side in found):
        raise UserError(f"{name}: size is {size}; give pixels a side, or [height, width]")
    return found[0], found[1]


def spatial_table(grid: int | Sides, width: int, scale: float) -> Tensor:
    """[sin(r w), cos(r w), sin(c w), cos(c w)] with w_k = 10000^(-k/q), q = width / 4: Float[rows * columns, width].

    grid: cells a side, or (rows, columns). r and c are row and column times `scale` (spec 1.6). Computed in float32,
    as the published tables are.
    """
    if width % 4:
        raise UserError(f"video: width {width} is not a multiple of 4, which 2-D sine-cosine positions need")
    rows, columns = sides_of(grid, "video")
    q = width // 4
    omega = 1.0 / 10000 ** (torch.arange(q, dtype=torch.float32) / q)
    cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2).float() * scale
    angles = cells.unsqueeze(-1) * omega  # [cells, (row, column), q]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def resize_cover(value: Tensor, sides: Sides) -> Tensor:
    """Bicubic to the smallest picture of the same aspect that covers height x width: Float[T, C, H, W]."""
    (h, w), (height, width) = value.shape[-2:], sides
    if h * width <= w * height:
        target = (height, max(width, round(w * height / h)))
    else:
        target = (max(height, round(h * width / w)), width)
    if (h, w) == target:
        return value
    return interpolate(value, target, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def centre_crop(value: Tensor, sides: Sides, factor: float = 1.0) -> Tensor:
    """Resized to cover `factor` times height x width, then the middle: Float[T, C, height, width]."""
    value = resize_cover(value, enlarged(sides, factor))
    top, left = ((have - side) // 2 for have, side in zip(value.shape[-2:], sides, strict=True))
    return value[..., top : top + sides[0], left : left + sides[1]]


def enlarged(sides: Sides, factor: float) -> Sides:
    """Both sides times a factor."""
    return round(sides[0] * factor), round(sides[1] * factor)
