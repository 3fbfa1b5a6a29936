"""Attention inside groups of a map's cells: windows that shift, or groups near and far.

Swin (2103.14030, section 3.2): windows of `size` x `size` cells; the second of two layers shifts them by half a window,
with a learned table of relative positions. CrossFormer (2108.00154, sections 3.2 and 3.3): the first of two layers sees
adjacent cells (SDA), the second cells `interval` apart (LDA), with a small network of relative positions (DPB).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.tokenizer import taken
from generalist.tokenizers_mod.maps.base import MapOperator


def offsets(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """All differences of two cells of a window, Int[(2 rows - 1) (2 columns - 1), 2], row by row."""
    axes = [torch.arange(1 - n, n, device=device) for n in (rows, columns)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)


def pairs(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Which of `offsets` query - key is, for every two cells of a window: Int[n n]."""
    cell = torch.arange(rows * columns, device=device)
    row, column = cell // columns, cell % columns
    return (row[:, None] - row + rows - 1) * (2 * columns - 1) + column[:, None] - column + columns - 1


class DynamicPositionBias(nn.Module):
    """A number a head for every offset (dy, dx): linear to `inner`, then LayerNorm, ReLU, linear three times."""

    def __init__(self, inner: int, heads: int) -> None:
        super().__init__()
        self.pos_proj = nn.Linear(2, inner)
        self.pos1, self.pos2 = layer(inner, inner), layer(inner, inner)
        self.pos3 = layer(inner, heads)

    def forward(self, offset: Tensor) -> Float[Tensor, "n heads"]:
        offset = taken(offset, self.pos_proj)
        return self.pos3(self.pos2(self.pos1(self.pos_proj(offset))))


def layer(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, out))


class PositionTable(nn.Module):
    """A number a head for every offset within windows of `size`; smaller windows look at its middle."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.size = size
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * size - 1) ** 2, heads))

    def forward(self, offset: Tensor) -> Float[Tensor, "n heads"]:
        dy, dx = (offset + self.size - 1).unbind(-1)
        return self.relative_position_bias_table[dy * (2 * self.size - 1) + dx]


class GroupAttention(nn.Module):
    """Attention among the n = rows x columns cells of each group, with a bias by their offsets."""

    def __init__(self, width: int, heads: int, pos: nn.Module) -> None:
        super().__init__()
        self.heads, self.pos = heads, pos
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B n D"], rows: int, columns: int, seen: Bool[Tensor, "B 1 n|1 n"] | None
    ) -> Float[Tensor, "B n D"]:
        """seen: which keys each query sees; None for all."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.pos(offsets(rows, columns, x.device))[pairs(rows, columns, x.device)].permute(2, 0, 1)
        bias = bias.to(q.dtype).unsqueeze(0)
        if seen is not None:
            bias = bias.masked_fill(~seen, torch.finfo(q.dtype).min)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Groups(NamedTuple):
    """rows x columns cells form a group; they stand `step` (two numbers) apart, and the map is rolled by `shift`."""

    rows: int
    columns: int
    step: tuple[int, int] = (1, 1)
    shift: tuple[int, int] = (0, 0)


class Window(MapOperator):
    """style: "shift" (Swin) or "cross" (CrossFormer). odd: whether it is the second of a pair; where a recipe does not
    say, every second window layer is. interval: how far apart the cells of a far group stand ("cross"); inner: width of
    its network of positions, 0 for a 16th of the tokens' but at least 4.

    A line of n tokens has groups of `size`. Maps not larger than a window are one group; they are padded to whole
    groups at the right and bottom, and what is padded or masked is no key.
    """

    stacked: ClassVar[dict[str, int]] = {"attn.qkv": 3}

    def __init__(
        self,
        width: int,
        heads: int,
        style: str = "shift",
        size: int = 4,
        interval: int = 2,
        odd: bool = False,
        inner: int = 0,
    ) -> None:
        super().__init__()
        if style not in ("shift", "cross"):
            raise UserError(f'window: style {style!r}; it is "shift" (Swin) or "cross" (CrossFormer)')
        if size < 1 or interval < 1 or inner < 0:
            raise UserError(
                f"window: size {size}, interval {interval}, inner {inner}; at least 1, 1 and 0, such as 4, 2 and 0"
            )
        self.style, self.size, self.interval, self.odd = style, size, interval, odd
        pos: nn.Module = PositionTable(size, heads)
        if style == "cross":  # of one channel a LayerNorm would leave nothing
            pos = DynamicPositionBias(inner or max(4, width // 16), heads)
        self.attn = GroupAttention(width, heads, pos)

    def refuses(self, rows: int, columns: int) -> str:
        if max(rows, columns) < self.size:
            return f"a map of {rows} x {columns} cells is smaller than its window; set size={max(rows, columns)}"
        return ""

    def groups(self, rows: int, columns: int) -> Groups:
        """How a map of this size is divided."""
        size = self.size
        if self.style == "shift":
            own = min(size, rows), min(size, columns)
            moved = (own[0] // 2 if rows > size else 0, own[1] // 2 if columns > size else 0)
            return Groups(*own, shift=moved if self.odd else (0, 0))
        if rows == 1 or columns == 1:
            own = min(size, rows), min(size, columns)
            far = self.odd and max(rows, columns) > size
            step = (self.interval if rows > 1 else 1, self.interval if columns > 1 else 1)
            return Groups(*own, step=step if far else (1, 1))
        if min(rows, columns) <= size:
            return Groups(min(rows, columns), min(rows, columns))
        return Groups(size, size, step=(self.interval, self.interval) if self.odd else (1, 1))

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        count, rows, columns, _ = x.shape
        how = self.groups(rows, columns)
        tall, wide = -rows % (how.rows * how.step[0]), -columns % (how.columns * how.step[1])
        shifted = any(how.shift)
        if real is not None or tall or wide:
            real = torch.ones(1, rows, columns, dtype=torch.bool, device=x.device) if real is None else real
            real = pad(real, (0, wide, 0, tall))
            x = pad(x, (0, 0, 0, wide, 0, tall))
        seen = None if real is None else parted(real.unsqueeze(-1).roll([-s for s in how.shift], (1, 2)), how)[0]
        seen = None if seen is None else seen.squeeze(-1)[:, None, None, :]
        if shifted:
            x = x.roll([-s for s in how.shift], (1, 2))
            part = parted(regions(x.shape[1], x.shape[2], how, x.device), how)[0].squeeze(-1)
            alike = (part[:, :, None] == part[:, None, :]).unsqueeze(1)  # cells that did not meet around an edge
            alike = alike.repeat(count, 1, 1, 1)
            seen = alike if seen is None else alike & expanded(seen, len(alike))
        cells, shape = parted(x, how)
        if seen is not None:
            seen = expanded(seen, len(cells))
        mixed = joined(self.attn(cells, how.rows, how.columns, seen), shape, how)
        if shifted:
            mixed = mixed.roll(how.shift, (1, 2))
        return mixed[:, :rows, :columns]


def expanded(seen: Tensor, groups: int) -> Tensor:
    """The same for every map, where it was said for one."""
    return seen if len(seen) == groups else seen.repeat(groups // len(seen), 1, 1, 1)


def parted(x: Float[Tensor, "G H W D"], how: Groups) -> tuple[Float[Tensor, "B n D"], tuple[int, ...]]:
    """Whole groups of a map, and the shape that brings them back. With steps (i, j) a group is every i-th row and every
    j-th column of a tile of rows i x columns j."""
    (i, j), count = how.step, x.shape[0]
    tiles = x.view(
        count, x.shape[1] // (how.rows * i), how.rows, i, x.shape[2] // (how.columns * j), how.columns, j, -1
    )
    tiles = tiles.permute(0, 1, 4, 3, 6, 2, 5, 7)
    return tiles.reshape(-1, how.rows * how.columns, x.shape[-1]), tuple(tiles.shape)


def joined(groups: Float[Tensor, "B n D"], shape: tuple[int, ...], how: Groups) -> Float[Tensor, "G H W D"]:
    """The way back of `parted`."""
    tiles = groups.view(shape).permute(0, 1, 5, 3, 2, 6, 4, 7)
    count, a, rows, i, b, columns, j, width = tiles.shape
    return tiles.reshape(count, a * rows * i, b * columns * j, width)


def regions(rows: int, columns: int, how: Groups, device: torch.device) -> Tensor:
    """Which cells of a rolled map were neighbours before: Int[1 rows columns 1], Swin's nine regions."""
    marks = []
    for length, own, shift in ((rows, how.rows, how.shift[0]), (columns, how.columns, how.shift[1])):
        place = torch.arange(length, device=device)
        marks.append((place >= length - own).long() + (place >= length - shift).long() if shift else place * 0)
    return (3 * marks[0][:, None] + marks[1])[None, :, :, None]
