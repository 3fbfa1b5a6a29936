"""Meta-Transformer's tokenizers with the original's settings (2307.10802; `spec/meta-transformer.md` section 2).

For comparison with published numbers and for weights made by the original; the house's own tokenizers are better
(same file, section 6). Use one by its path: `modalities={"image": {"class":
"generalist.tokenizers_mod.published.meta_transformer:MetaImage"}}`. CPU halves are the house's, brought to the
original's order. The original has no summary: its class token plus the first position row is the summary's row here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.audio.fbank import fbank
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken
from generalist.tokenizers_mod.numbers.series import load_array
from generalist.tokenizers_mod.published.meta_points import MetaPoints as MetaPoints
from generalist.tokenizers_mod.published.meta_points import ProgressiveStage as ProgressiveStage
from generalist.tokenizers_mod.vision.films.frames import sides_of
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.spectral import Spectral
from generalist.tokenizers_mod.vision.video import Video


def position_table(position: Tensor, width: int) -> Float[Tensor, "n width"]:
    """sin(p w_i) in column 2i, cos(p w_i) in 2i + 1, w_i = 10000^(-2i / width) (1706.03762, section 3.5)."""
    rate = 10000.0 ** (-torch.arange(0, width, 2, device=position.device, dtype=torch.float64) / width)
    angle = position.double().unsqueeze(-1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).float()


class LinearTokens(Tokenizer):
    """Linear of a flattened patch (a convolution with kernel = stride) + a position.

    positions: "none"; "fixed", the sine table; or the rows of a learned table.
    """

    def __init__(self, size: int, width: int, positions: str | int = "none", bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Linear(size, width, bias=bias)
        self.fixed = positions == "fixed"
        self.pos_embed = nn.Parameter(torch.randn(positions, width) * 0.02) if isinstance(positions, int) else None

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"patch": [N, size], "index": Int[N]} -> [N, width]."""
        x = self.proj(taken(data["patch"], self.proj))
        if self.fixed:
            x = x + position_table(data["index"], x.shape[-1]).to(x.dtype)
        return x if self.pos_embed is None else x + embedding(data["index"], self.pos_embed)


@dataclass
class MetaImage(Image):
    """Image, infrared and X-ray: non-overlapping patches; positions only in the X-ray model (`learned`).

    grid: [rows, columns] of patches that every picture is brought to, and of the learned table, for pictures that are
    not square (`size` is then the longer side); default the picture's own shape and a table of size / patch a side.

    >>> MetaImage(patch=8, grid=[4, 6]).span(torch.rand(3, 30, 50)).grid
    (4, 6)
    """

    channels: int = 3
    learned: bool = False
    grid: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.grid:
            rows, columns = sides_of(self.grid, f"{self.name}, grid")
            self.size = max(rows, columns) * self.patch
        super().__post_init__()

    @property
    def table(self) -> tuple[int, int]:
        """Rows and columns of the learned table."""
        return sides_of(self.grid or self.size // self.patch, self.name)

    def shape(self, h: int, w: int) -> tuple[int, int]:
        return self.table if self.grid else super().shape(h, w)

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """[C, H, W] in 0..1 -> data {"patch": [n, C p p], "index": [n]}, row by row in the full grid."""
        span = super().span(value, rng)
        index = self.index(span.data["position"])
        return Span(self.name, {"patch": span.data["patch"], "index": index}, span.length, grid=span.grid)

    def index(self, position: Tensor) -> Tensor:
        """Row and column of patches -> rows of the table."""
        return position[:, 0] * self.table[1] + position[:, 1]

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        flat, real = super().padded(tensors)
        rows, columns = (side // self.patch for side in tensors["pixel_values"].shape[2:])
        if self.learned and (rows > self.table[0] or columns > self.table[1]):
            raise UserError(f"{self.name}: {rows} x {columns} patches, the table has {self.table[0]} x {self.table[1]}")
        return {"patch": flat["patch"], "index": self.index(flat["position"].long())}, real

    def build(self, width: int) -> LinearTokens:
        cells = self.table[0] * self.table[1]
        return LinearTokens(self.channels * self.patch**2, width, cells if self.learned else "none")


@dataclass
class MetaVideo(Video):
    """Tubelets of `tube` frames, fixed positions over the flattened index. frames: a multiple of tube."""

    count: ClassVar[str] = "floor(T / tube) (size / patch)^2"
    tube: int = 2

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """[T, C, H, W] in 0..1 -> data {"patch": [n, C tube p p], "index": [n]}, time first. UserError: T < tube."""
        value = self.shown(value, rng)
        t, c, h, w = value.shape
        steps, p = t // self.tube, self.patch
        if steps == 0:
            raise UserError(f"{self.name}: {t} frames are less than one tubelet of {self.tube}; use a longer clip")
        value = value[: steps * self.tube].view(steps, self.tube, c, h // p, p, w // p, p)
        patch = value.permute(0, 3, 5, 2, 1, 4, 6).reshape(-1, c * self.tube * p * p)
        grid = (steps, h // p, w // p)
        return Span(self.name, {"patch": patch, "index": torch.arange(len(patch))}, len(patch), grid=grid)

    def build(self, width: int) -> nn.Module:
        return LinearTokens(self.channels * self.tube * self.patch**2, width, "fixed")


@dataclass
class MetaAudio(Audio):
    """AST's fork: `steps` frames, zero rows at the end, frequency as height; learned positions, no class token."""

    mels: int = 224
    patch: list[int] = field(default_factory=lambda: [32, 32])
    mean: float = -6.845978
    std: float = 5.5654526
    steps: int = 224

    def span(self, value: Float[Tensor, " t"], rng: torch.Generator | None = None) -> Span:
        """Waveform [t] -> data {"patch": [n, mel * time], "index": [n]}, mel rows first, grid (mel, time)."""
        mel = fbank(value - value.mean(), self.rate, self.mels, self.window)[: self.steps]
        mel = pad(mel, (0, 0, 0, self.steps - len(mel)))
        mel = ((mel - self.mean) / (2 * self.std)).T
        patches = mel.unfold(0, self.patch[0], self.stride[0]).unfold(1, self.patch[1], self.stride[1])
        rows, columns = patches.shape[:2]
        patch = patches.reshape(rows * columns, -1)
        return Span(self.name, {"patch": patch, "index": torch.arange(len(patch))}, len(patch), grid=(rows, columns))

    def build(self, width: int) -> nn.Module:
        columns = (self.steps - self.patch[1]) // self.stride[1] + 1
        return LinearTokens(self.patch[0] * self.patch[1], width, self.rows * columns)


@dataclass
class MetaSeries(Modality):
    """Time series and IMU. One token a step: circular convolution of width 3 over all variables, fixed positions.

    patch: > 0 gives the patch variant: variables apart (one span each), windows of `patch` steps every `stride`,
    the last value repeated `stride` times at the end, no bias, fixed positions. marks: calendar features a step,
    through a linear without bias (0 = none); "month, day, weekday, hour, quarter" as whole numbers when `calendar`.
    """

    name: ClassVar[str] = "series"
    axes: ClassVar[int] = 1
    raw: ClassVar[str] = "array [t, variables], or (array, marks [t, marks])"
    count: ClassVar[str] = "t, or floor((t - patch) / stride) + 2 a variable"

    variables: int = 7
    patch: int = 0
    stride: int = 4
    marks: int = 0
    calendar: bool = False

    def read(self, raw: Any) -> tuple[Tensor, Tensor | None]:
        """-> (float32 [t, variables], marks or None). UserError: wrong shape, NaN."""
        marks = None
        if isinstance(raw, tuple):
            raw, marks = raw[0], torch.as_tensor(raw[1])
        array, what = load_array(raw, self.name)
        value = torch.from_numpy(array).float()
        if value.ndim != 2 or value.shape[1] != self.variables or not bool(value.isfinite().all()):
            raise UserError(f"{what}: shape {tuple(value.shape)}; expected finite [t, {self.variables}]")
        if len(value) < max(1, self.patch):
            raise UserError(f"{what}: {len(value)} steps are less than one token; use a longer series")
        wanted = 5 if self.calendar else self.marks
        if wanted and (marks is None or tuple(marks.shape) != (len(value), wanted)):
            raise UserError(f"{what}: needs calendar marks [{len(value)}, {wanted}]; give (series, marks)")
        return value, marks

    def span(self, value: tuple[Tensor, Tensor | None], rng: torch.Generator | None = None) -> Span:
        """Steps: data {"patch": [t, variables * 3], "index": [t], "mark": [t, marks]}; windows: one variable's."""
        series, marks = value
        if self.patch:
            if series.shape[1] != 1:
                raise UserError(f"{self.name}: windows take one variable a span, got {series.shape[1]}")
            column = pad(series.T, (0, self.stride), mode="replicate")[0]
            windows = column.unfold(0, self.patch, self.stride)
            return Span(
                self.name, {"patch": windows, "index": torch.arange(len(windows))}, len(windows), grid=(len(windows),)
            )
        around = torch.stack([series.roll(1, 0), series, series.roll(-1, 0)], dim=-1)  # W[:, v, j] x[t + j - 1, v]
        data = {"patch": around.flatten(1), "index": torch.arange(len(series))}
        if marks is not None:
            data["mark"] = marks
        return Span(self.name, data, len(series), grid=(len(series),))

    def build(self, width: int) -> nn.Module:
        return MetaSeriesTokens(self.patch or 3 * self.variables, self.marks, self.calendar, width)


class MetaSeriesTokens(Tokenizer):
    """value linear + sine table + calendar."""

    def __init__(self, size: int, marks: int, calendar: bool, width: int) -> None:
        super().__init__()
        self.value = LinearTokens(size, width, "fixed", bias=False)
        self.mark = nn.Linear(marks, width, bias=False) if marks else None
        self.calendar = calendar

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        x = self.value(data)
        if self.calendar:
            x = x + position_table(data["mark"], x.shape[-1]).sum(-2).to(x.dtype)
        return x if self.mark is None else x + self.mark(data["mark"].to(x.dtype))


@dataclass
class MetaSpectral(Spectral):
    """A pixel's window, one token a band with its neighbours, cyclic; learned positions. mean, std: the scene's
    minimum and range of every band (`minmax`)."""

    group: int = 3
    stride: int = 1
    cyclic: bool = True

    def minmax(self, cube: Any) -> None:
        """Take the minimum and range of every band of a scene [H, W, bands] as mean and std."""
        flat = self._cube(cube)[0].reshape(-1, self.bands)
        self.mean = [float(v) for v in flat.min(0)]
        self.std = [float(v) or 1.0 for v in flat.max(0) - flat.min(0)]

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """[p, p, bands] -> data {"patch": [bands, group p p], "index": [bands]}."""
        span = super().span(value, rng)
        if span.grid is None or span.grid[1:] != (1, 1):
            raise UserError(f"{self.name}: give (cube, row, column): the original reads one window of {self.patch}")
        half = span.data["patch"].shape[1] // 2
        return Span(
            self.name,
            {"patch": span.data["patch"][:, :half], "index": torch.arange(span.length)},
            span.length,
            mask=span.mask,
            grid=span.grid,
        )

    def build(self, width: int) -> nn.Module:
        if self.hidden:
            raise UserError(f"{self.name}: hidden is {self.hidden}; the original has no hidden layer, set it to 0")
        return LinearTokens(self.group * self.patch**2, width, self.bands)
