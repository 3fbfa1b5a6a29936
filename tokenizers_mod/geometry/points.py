"""Point clouds: farthest point sampling and nearest neighbours cut a cloud into groups, one token each.

Source: Point-BERT (2111.14819) and Point-MAE (2203.06604) section 3.1, with LayerNorm instead of
BatchNorm (tokens of different clouds share a packed batch); `spec/meta-transformer.md` section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.data.media import arrays
from generalist.data.tables.table_limits import check_lines
from generalist.tokenizers_mod.base.base import Modality, check_finite, load_numbers
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken


def sample_groups(xyz: Float[Tensor, "n 3"], groups: int, size: int) -> tuple[Int[Tensor, " g"], Int[Tensor, "g size"]]:
    """Farthest point sampling from point 0, then nearest neighbours of each centre.

    xyz: [n, 3]. Returns (centre indices [g], neighbour indices [g, size], nearest first) with
    g = min(groups, distinct points). A cloud of fewer than `size` points repeats its neighbours, which a
    max over the group does not see.
    """
    points = np.ascontiguousarray(xyz.numpy().T)  # an axis at a time: sums over rows of three are slow
    nearest = np.full(len(xyz), np.inf, dtype=points.dtype)
    rows = np.empty((min(groups, len(xyz)), len(xyz)), dtype=points.dtype)  # squared distances from every centre
    away = np.empty_like(points)
    chosen, far = [], 0
    for row in rows:
        np.subtract(points, points[:, far, None], out=away)
        np.square(away, out=away)
        np.add(away[0], away[1], out=row)
        row += away[2]
        chosen.append(far)
        np.minimum(nearest, row, out=nearest)
        far = int(nearest.argmax())
        if nearest[far] == 0:  # every point is a centre or lies on one
            break
    near = torch.from_numpy(rows[: len(chosen)]).topk(min(size, len(xyz)), largest=False).indices
    if near.shape[1] < size:
        near = near[:, torch.arange(size) % near.shape[1]]
    return torch.tensor(chosen), near


@dataclass
class Points(Modality):
    """A set of points -> groups of neighbours.

    channels: extra columns after x, y, z (colour, normals ...). groups, size: centres and neighbours of
    each. points: larger clouds are thinned to this many, at random in training, evenly otherwise; 0 = never.
    normalise: centre at the mean, farthest point at distance 1. dedupe: drop points with equal x, y, z.
    hidden: first width of the mini-PointNet. Training only: rotate about z by any angle; scale by
    1 +- `scale`; jitter each point by N(0, jitter), cut at 3 jitter.

    >>> points = Points(groups=16, size=8)
    >>> points.span(points.read(np.random.default_rng(0).random((100, 3)))).length
    16
    """

    name: ClassVar[str] = "points"
    raw: ClassVar[str] = "array [n, 3 + channels]; .npy, .npz, .csv, .txt or .xyz path"
    count: ClassVar[str] = "min(groups, distinct); distinct points"

    channels: int = 0
    groups: int = 64
    size: int = 32
    points: int = 8192
    normalise: bool = True
    dedupe: bool = False
    hidden: int = 128
    rotate: bool = False
    scale: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if min(self.groups, self.size, self.hidden) < 1 or min(self.channels, self.points) < 0:
            raise UserError("points: groups, size and hidden must be >= 1, channels and points >= 0")

    def read(self, raw: Any) -> Float[Tensor, "n columns"]:
        """-> float32 [n, 3 + channels]. UserError: unreadable, empty, NaN, wrong number of columns."""
        array, what = load_numbers(raw, "points", _load_file)
        if array.ndim != 2 or array.shape[1] != 3 + self.channels:
            raise UserError(
                f"{what}: shape {array.shape}, expected (n, {3 + self.channels}): x, y, z"
                + (f" and {self.channels} channels" if self.channels else "; set channels for more columns")
            )
        if len(array) == 0:
            raise UserError(f"{what}: no points; remove the cloud")
        check_finite(array, what)
        if self.dedupe:
            array = array[np.sort(np.unique(array[:, :3], axis=0, return_index=True)[1])]
        if self.normalise:
            xyz = array[:, :3]
            xyz = xyz / (np.abs(xyz).max() or 1.0)  # first to a safe size: squares of large numbers overflow
            xyz = xyz - xyz.mean(axis=0)
            xyz = xyz / (np.sqrt(np.square(xyz).sum(axis=1).max()) or 1.0)
            array = np.concatenate([xyz, array[:, 3:]], axis=1)
        if np.abs(array).max() > 1e15:
            raise UserError(
                f"{what}: values up to {np.abs(array).max():.3g}; rescale them (normalise scales x, y, z only)"
            )
        return torch.from_numpy(array.astype(np.float32))

    def plain(self, raw: Any) -> Any:
        return {"points": self.read(raw).numpy()}

    def span(self, value: Float[Tensor, "n columns"], rng: torch.Generator | None = None) -> Span:
        """[n, 3 + c] -> data {"group": [g, size, 3 + c] (x, y, z relative to the centre), "center": [g, 3]}."""
        if self.points and len(value) > self.points:
            if rng is None:
                keep = torch.arange(self.points) * len(value) // self.points
            else:
                keep = torch.randperm(len(value), generator=rng)[: self.points]
            value = value[keep]
        if rng is not None:
            value = self._augment(value, rng)
        centre, near = sample_groups(value[:, :3].contiguous(), self.groups, self.size)
        group, center = value[near], value[centre, :3]
        group[..., :3] -= center.unsqueeze(1)
        return Span(self.name, {"group": group, "center": center}, len(center))

    def steady(self) -> tuple[str, ...]:
        drawn = self.points or self.rotate or self.scale or self.jitter
        return ("read",) if drawn else ("read", "span")

    def _augment(self, value: Tensor, rng: torch.Generator) -> Tensor:
        xyz = value[:, :3]
        if self.rotate:
            angle = torch.rand((), generator=rng) * 2 * torch.pi
            cos, sin = angle.cos(), angle.sin()
            x, y, z = xyz.unbind(1)
            xyz = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=1)
        if self.scale:
            xyz = xyz * (1 + self.scale * (2 * torch.rand((), generator=rng) - 1))
        if self.jitter:
            noise = torch.randn(xyz.shape, generator=rng)
            xyz = xyz + self.jitter * noise.clamp(-3, 3)
        return torch.cat([xyz, value[:, 3:]], dim=1) if self.channels else xyz

    def content(self) -> dict[str, float]:
        return {"group": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        return {"kind": "points", "xyz": self.read(raw)[:512, :3].tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.geometry.examples import points

        return points()

    def build(self, width: int) -> nn.Module:
        return PointTokens(3 + self.channels, self.hidden, width)


class PointTokens(Tokenizer):
    """Mini-PointNet of the group + MLP of its centre."""

    def __init__(self, columns: int, hidden: int, width: int) -> None:
        super().__init__()
        wide = 4 * hidden
        self.first = nn.Sequential(
            nn.Linear(columns, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, 2 * hidden)
        )
        # the published linear of [max over the group, own], split so that the max is multiplied once a group
        self.pooled = nn.Linear(2 * hidden, wide)
        self.own = nn.Linear(2 * hidden, wide, bias=False)
        self.second = nn.Sequential(nn.LayerNorm(wide), nn.ReLU(), nn.Linear(wide, width))
        self.position = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"group": [N, k, 3 + c], "center": [N, 3]} -> [N, width]."""
        x = self.first(taken(data["group"], self.own))
        x = self.own(x) + self.pooled(x.amax(dim=1)).unsqueeze(1)
        return self.second(x).amax(dim=1) + self.position(taken(data["center"], self.own))


def _load_file(path: Path, what: str) -> Any:
    if path.suffix == ".npy":
        return arrays.load(path, what)
    if path.suffix == ".npz":

        def choose(names: list[str]) -> list[str]:
            name = next((n for n in ("points", "xyz", "pos") if n in names), names[0] if len(names) == 1 else None)
            if name is None:
                raise UserError(f"{what}: which array of {names[:20]}? name it 'points' or pass the array itself")
            return [name]

        return next(iter(arrays.load_archive(path, what, choose).values()))
    if path.suffix in (".csv", ".txt", ".xyz"):
        import pandas

        check_lines(path)
        if not path.read_bytes().strip():
            raise UserError(f"{what}: no points; remove the cloud")
        separator = "," if path.suffix == ".csv" else r"\s+"
        table = pandas.read_csv(path, sep=separator, header=None, comment="#", low_memory=False)
        head = pandas.to_numeric(table.iloc[0], errors="coerce")
        if head.isna().all():  # a row of column names
            table = table.iloc[1:]
        return table.to_numpy()
    raise UserError(f"{what}: unknown file type {path.suffix!r}; use .npy, .npz, .csv, .txt or .xyz")
