"""Hyena over N axes (2309.13600): gates and a convolution as long as the map, whose filter is a function of the place.

    u = in(x), depthwise 3x3;   x_0 .. x_(p-1), v = split(u)
    v = filter_o * (v x_i) + D_o v x_i    for i = p-1 .. 1            y = out(v x_0)

The convolution takes what lies above and to the left (zeros outside), by FFT in float32: cells x log(cells). A filter
is made at the size of the map by an MLP with sines of z = [t, cos(f w), -sin(f w)], t from 0 to 1 along an axis and
w = 2 pi i / n, times a window that falls with t:

    grid      one MLP of [z_row, z_column]        product   one of each axis, multiplied
    direct    the filter is a parameter of one size, resampled at others

Written after the authors' code (Itamarzimm/HyenaND), whose numbers it has; theirs divides the convolution by twice the
side (`official_scale`), which ties weights to a size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.maps.base import MapOperator, OwnLinear, convolved, kept

FILTERS = ("grid", "product", "direct")
WINDOWS = ("fixed", "learn", "symmetric", "none")
DIRECTIONS = ("standard", "seq", "4dir", "4dirp", "parallel")
FAST, SLOW, TARGET = 0.3, 1.5, 1e-2  # the window falls to TARGET at these shares of the axis, by channel
TURNS = ((), (1, 2), (2,), (1,))  # which of rows and columns each of the four directions flips


class Hyena(MapOperator):
    """order: gates p, and p - 1 filters. hidden, features, inner: of the filter's MLP, its width, the numbers of z an
    axis (odd) and its linears between the first and the last. direction: "seq" flips the map both ways for the first
    convolution; "4dir" and "4dirp" mix four flipped copies, a number or a matrix each; "parallel" convolves four groups
    of the short filter. size: of the stored z and of a direct filter, a side or [rows, columns]; 0 computes z.
    """

    def __init__(
        self,
        width: int,
        order: int = 2,
        hidden: int = 64,
        filter: str = "grid",
        window: str = "fixed",
        direction: str = "standard",
        sqrt_decay: bool = False,
        size: int | Sequence[int] = 0,
        features: int = 3,
        inner: int = 2,
        official_scale: bool = False,
    ) -> None:
        super().__init__()
        for what, value, valid in (
            ("filter", filter, FILTERS),
            ("window", window, WINDOWS),
            ("direction", direction, DIRECTIONS),
        ):
            if value not in valid:
                raise UserError(f"model: hyena {what} {value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")
        if order < 2 or hidden < 1 or features < 3 or not features % 2 or inner < 0:
            raise UserError("model: hyena needs order >= 2, hidden >= 1, inner >= 0 and an odd number of features >= 3")
        if window == "symmetric" and filter == "product":
            raise UserError("model: hyena window 'symmetric' goes with filter 'grid'; choose another of the two")
        self.order, self.direction, self.official_scale = order, direction, official_scale
        wide, groups = (order + 1) * width, 4 if direction == "parallel" else 1
        sides = [size] * 2 if isinstance(size, int) else list(size)
        self.into, self.out = nn.Linear(width, wide), nn.Linear(groups * width, width)
        self.short = nn.Conv2d(wide, groups * wide, 3, padding=1, groups=wide)
        self.filter: Direct | Implicit
        if filter == "direct":
            self.filter = Direct(width, order - 1, sides)
        else:
            self.filter = Implicit(
                width * (order - 1), hidden, filter == "grid", window, sqrt_decay, sides, features, inner
            )
        self.skip = nn.Parameter(torch.randn(order - 1, width))
        self.merge: nn.Linear | None = None
        if direction in ("4dir", "4dirp"):
            self.merge = nn.Linear(4, 1) if direction == "4dir" else nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        u = convolved(self.short, kept(self.into(x), real))
        if self.direction == "parallel":
            u = u.unflatten(-1, (4, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)
            real = None if real is None else real.repeat_interleave(4, dim=0)
        if self.merge is None:
            y = self.gated(u, real)
            return self.out(y.unflatten(0, (-1, 4)).permute(0, 2, 3, 1, 4).flatten(3) if len(y) != len(x) else y)
        turned = [
            self.gated(u.flip(axes), None if real is None else real.flip(axes)).flip(axes)
            if axes
            else self.gated(u, real)
            for axes in TURNS
        ]
        y = torch.stack(turned, dim=-1)
        return self.out(self.merge(y).squeeze(-1) if self.direction == "4dir" else self.merge(y.flatten(3)))

    def gated(self, u: Float[Tensor, "G H W E"], real: Tensor | None) -> Float[Tensor, "G H W D"]:
        """Gates and long convolutions. u: [x_0, .., x_(p-1), v] one behind the other."""
        first, *gates, v = u.chunk(self.order + 1, dim=-1)
        filters = self.filter(*u.shape[1:3]).unflatten(-1, (self.order - 1, -1))
        for number, gate in enumerate(reversed(gates)):
            v = kept(v * gate, real)
            if self.direction == "seq" and number == 0:
                v = self.long(v.flip(1, 2), filters[..., number, :], self.skip[number]).flip(1, 2)
            else:
                v = self.long(v, filters[..., number, :], self.skip[number])
        return v * first

    def long(self, v: Float[Tensor, "G H W D"], filter: Float[Tensor, "H W D"], skip: Tensor) -> Tensor:
        """The convolution of the map with a filter of its size, plus skip * v."""
        made = long_convolution(v.permute(0, 3, 1, 2), filter.permute(2, 0, 1), self.official_scale)
        return made.permute(0, 2, 3, 1).to(v.dtype) + skip.to(v.dtype) * v


def long_convolution(
    v: Float[Tensor, "G D H W"], filter: Float[Tensor, "D H W"], official_scale: bool = False
) -> Float[Tensor, "G D H W"]:
    """sum of filter[a, b] v[i - a, j - b] over what lies in the map; over twice the side with `official_scale`."""
    rows, columns = v.shape[-2:]
    size = (1 if rows == 1 else 2 * rows, 1 if columns == 1 else 2 * columns)
    scale = 2 * math.sqrt(rows * columns) if official_scale else 1.0
    spectrum = torch.fft.rfft2(filter.float() / scale, s=size)
    return torch.fft.irfft2(torch.fft.rfft2(v.float(), s=size) * spectrum, s=size)[..., :rows, :columns]


class Direct(nn.Module):
    """Filters as parameters of one size, brought to others bilinearly."""

    def __init__(self, width: int, count: int, size: Sequence[int]) -> None:
        super().__init__()
        if min(size) < 1:
            raise UserError("model: hyena filter 'direct' has weights of a map's size; give size, such as 14")
        self.values = nn.Parameter(torch.randn(count, width, *size))

    def forward(self, rows: int, columns: int) -> Float[Tensor, "H W E"]:
        values: Tensor = self.values
        if values.shape[-2:] != (rows, columns):
            values = interpolate(values, (rows, columns), mode="bilinear", align_corners=False)
        return values.flatten(0, 1).permute(1, 2, 0)


class Implicit(nn.Module):
    """Filters of `width` channels in all as a function of the place."""

    def __init__(
        self,
        width: int,
        hidden: int,
        grid: bool,
        window: str,
        sqrt_decay: bool,
        size: Sequence[int],
        features: int,
        inner: int,
    ) -> None:
        super().__init__()
        self.grid, self.window, self.sqrt_decay, self.features = grid, window, sqrt_decay, features
        self.frequency = nn.Parameter(torch.ones(hidden))  # one for all sines
        given, count = (2 * features, 1) if grid else (features, 2)
        self.mlps = nn.ModuleList(nn.ModuleList() for _ in range(count))
        for mlp in cast(list[nn.ModuleList], list(self.mlps)):
            sizes = [given, *[hidden] * (inner + 1)]
            mlp.extend(OwnLinear(a, b) for a, b in pairwise(sizes))
            mlp.append(OwnLinear(hidden, width, bias=False))
        self.width = width
        if window == "learn":  # of rows, then of columns
            self.deltas = nn.Parameter(falls(width).expand(2, -1).clone())
            self.shift = nn.Parameter(torch.rand(1 if grid else 2, width))
        elif window == "symmetric":
            self.deltas = nn.Parameter(falls(width).expand(1, -1).clone())
            self.shift = nn.Parameter(torch.rand(1, width))
        if size[0]:
            for name, n in zip(("z_rows", "z_columns"), size, strict=True):
                self.register_buffer(name, places(n, features))
        self.stored = bool(size[0])

    def forward(self, rows: int, columns: int) -> Float[Tensor, "H W E"]:
        """Filters of a map of this size."""
        down, across = self.place("z_rows", rows), self.place("z_columns", columns)
        device = self.frequency.device
        fall = [steps(n, device, self.window == "symmetric") for n in (rows, columns)]
        if not self.grid:
            x, y = (self.made(mlp, z) for mlp, z in zip(self.mlps, (down, across), strict=True))
            if self.window != "none":
                x, y = (
                    f * (self.falling(t, i) + self.shifted(i))
                    for i, (f, t) in enumerate(zip((x, y), fall, strict=True))
                )
            return x[:, None] * y[None]
        pairs = torch.cat([down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], dim=-1)
        made = self.made(self.mlps[0], pairs)
        if self.window == "none":
            return made
        window = self.falling(fall[0], 0)[:, None] * self.falling(fall[1], 1)[None]
        return made * ((window.sqrt() if self.sqrt_decay else window) + self.shifted(0))

    def made(self, mlp: nn.Module, z: Tensor) -> Tensor:
        *linears, last = mlp.children()
        for linear in linears:
            z = (self.frequency * linear(z)).sin()
        return last(z)

    def place(self, name: str, n: int) -> Float[Tensor, "n features"]:
        """z of an axis: computed, or what is stored, resampled at another size."""
        if not self.stored:
            return places(n, self.features, self.frequency.device)
        z: Tensor = self.get_buffer(name)
        return z if len(z) == n else interpolate(z.T[None], n, mode="linear", align_corners=True)[0].T

    def falling(self, t: Float[Tensor, " n"], axis: int) -> Float[Tensor, "n E"]:
        """The window along an axis."""
        if self.window == "fixed":
            deltas = falls(self.width, t.device)
        else:
            deltas = self.deltas[min(axis, len(self.deltas) - 1)]
        return torch.exp(-t[:, None] * deltas.abs())

    def shifted(self, axis: int) -> Tensor | float:
        return 0.0 if self.window == "fixed" else self.shift[axis]


def places(n: int, features: int, device: torch.device | None = None) -> Float[Tensor, "n features"]:
    """z = [t, cos(f w), -sin(f w)] of the n places of an axis, with (features - 1) / 2 frequencies f."""
    t = torch.linspace(0, 1, n, device=device)
    bands = (features - 1) // 2
    angle = (
        torch.linspace(1e-4, bands - 1, bands, device=device)
        * (2 * math.pi / n * torch.arange(n, device=device))[:, None]
    )
    return torch.cat([t[:, None], angle.cos(), -angle.sin()], dim=1)


def steps(n: int, device: torch.device, whole: bool) -> Float[Tensor, " n"]:
    """How far a place of an axis is from its start, the whole of it 1; counted in places if `whole`."""
    return torch.arange(n, device=device).float() if whole else torch.linspace(0, 1, n, device=device)


def falls(width: int, device: torch.device | None = None) -> Float[Tensor, " width"]:
    """The rates at which the windows of the channels fall."""
    return torch.linspace(math.log(TARGET) / SLOW, math.log(TARGET) / FAST, width, device=device)
