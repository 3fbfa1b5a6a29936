"""Pictures and clips of one size as patches with fixed spatial and learned temporal positions.

Uni-Perceiver's vision embedding (2112.01522, section 3; spec 1.6), before the model's shared embedding norm:

    token = W patch + b + Temporal[t] + Spatial[row, column]        a picture is a clip of one frame

W is a convolution with stride = kernel, written as a linear map of the flattened patch. Tokens run frame by frame,
each frame row by row. With `tubelet` > 1 a token holds the patches of as many neighbouring frames, a convolution over
time as well (ViViT, 2103.15691, section 3.2; VideoMAE, 2203.12602, uses two frames a token).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import check_finite
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.views import clip, crop, read_once, spread
from generalist.tokenizers_mod.vision.augment import crop_and_flip, strong
from generalist.tokenizers_mod.vision.films.clips import CLIPS, read_clip
from generalist.tokenizers_mod.vision.films.frames import (
    Sides,
    centre_crop,
    enlarged,
    resize_cover,
    sides_of,
)
from generalist.tokenizers_mod.vision.films.tensors import FilmTensors
from generalist.tokenizers_mod.vision.films.tokens import VideoTokens
from generalist.tokenizers_mod.vision.image import read_image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTATIONS = ("none", "crop", "strong")


@dataclass
class Video(FilmTensors):
    """Clips [T, C, H, W] and pictures [C, H, W], brought to size x size pixels a frame.

    size: pixels a side, or [height, width] for frames that are not square.
    frames: most frames of a clip, which the temporal table has rows for; 0 = any number, with sine-cosine instead of
        the table. sample: frames taken of a longer clip, evenly spread; 0 = `frames`. tubelet: frames a token; the last
        frame stands still until its tubelet is full, so a picture is a whole tubelet.
    coordinate_scale: factor of row and column in the sine-cosine table; 0 = 160 / size (the longer side), so that a
        grid covers the coordinates that 160 pixels had (spec 1.6). table: "sincos" (fixed) or "learned" positions.
    temporal_offset: in training a clip of T rows starts at a random row 0..rows - T of the table (spec 1.6).
    shares: name of another Video of the model whose weights this one uses, and then has none of its own.
    augment: training: "crop" (short side to size, random crop, flip), "strong" (random resized crop, flip,
        RandAugment m9 std 0.5, random erasing 0.25) or "none" (spec 1.14). short_side: evaluation's resize of the
        short side as a multiple of size (256 / 224 for ImageNet) before the centre crop. flip: its probability.
    mean, std: one value or one a channel.
    stem: channels of a convolutional stem inside each patch (`generalist.tokenizers_mod.vision.stem`), 0 = a linear
    map. moving: tokens show what differs from the clip's median frame (a still background and all that rests vanish);
        a picture stays as it is.

    clips, crops: views in evaluation: interleaved clips of clips * sample frames, each cut `crops` times along its
        longer side; their probabilities are averaged (4 and 3 for Kinetics, spec 1.14;
        `generalist.tokenizers_mod.base.views`).

    >>> video = Video(size=32, patch=16, frames=8, tubelet=2)
    >>> video.span(video.read(np.zeros((5, 40, 60, 3), dtype=np.uint8))).grid  # 5 frames: 3 tubelets of 2 x 2 patches
    (3, 2, 2)
    """

    name: ClassVar[str] = "video"
    raw: ClassVar[str] = (
        "clip [T, H, W], [T, H, W, C] or [T, C, H, W], list of pictures, path (video needs av), or picture"
    )
    count: ClassVar[str] = (
        "ceil(min(T, sample or frames or T) / tubelet) * (size // patch) ** 2; "
        "of size [height, width]: (height // patch) * (width // patch) a tubelet"
    )
    kind: ClassVar[str] = "vision"
    device_keys: ClassVar[tuple[str, ...]] = ("stem",)

    size: int | list[int] = 64
    patch: int = 16
    channels: int = 3
    frames: int = 8
    sample: int = 0
    mean: float | list[float] = 0.5
    std: float | list[float] = 0.5
    coordinate_scale: float = 0.0
    table: str = "sincos"
    bias: bool = True
    temporal_offset: bool = True
    augment: str = "none"
    short_side: float = 1.0
    flip: float = 0.5
    shares: str = ""
    tubelet: int = 1
    stem: int = 0
    moving: bool = False

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if min(*self.sides, self.patch, self.channels) < 1 or any(side % self.patch for side in self.sides):
            raise UserError(f"{self.name}: size {self.size} must be a positive multiple of patch {self.patch}")
        if self.tubelet < 1 or min(self.frames, self.stem) < 0:
            raise UserError(
                f"{self.name}: need tubelet {self.tubelet} >= 1, frames {self.frames} >= 0, stem {self.stem} >= 0"
            )
        for key, valid in (("table", ("sincos", "learned")), ("augment", AUGMENTATIONS)):
            if vars(self)[key] not in valid:
                raise UserError(f"{self.name}: {key}={vars(self)[key]!r}; valid: {', '.join(valid)}")
        if self.sample < 0 or (self.frames and self.sample > self.frames):
            raise UserError(
                f"{self.name}: sample {self.sample} frames of a table of {self.frames}; lower one, raise the other"
            )
        if self.clips < 1 or self.crops < 1:
            raise UserError(f"{self.name}: need clips {self.clips} >= 1 and crops {self.crops} >= 1")
        if self.short_side < 1:
            raise UserError(f"{self.name}: short_side is {self.short_side}; the centre crop needs at least 1")

    @property
    def views(self) -> int:
        """How often evaluation looks at a sample."""
        return self.clips * self.crops

    @property
    def taken(self) -> int:
        """Frames of a long clip that are looked at, 0 = all."""
        return (self.sample or self.frames) * (1 if self.view is None else self.clips)

    @property
    def rows(self) -> int:
        """Rows of the temporal table, 0 = there is none."""
        return -(-self.frames // self.tubelet)

    @property
    def sides(self) -> Sides:
        """Height and width of a frame."""
        return sides_of(self.size, self.name)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.sides[0] // self.patch, self.sides[1] // self.patch

    @property
    def scale(self) -> float:
        """Factor of row and column in the sine-cosine table."""
        return self.coordinate_scale or 160 / max(self.sides)

    # --- CPU half ---

    def read(self, raw: Any) -> Tensor:
        """A clip or a picture -> Float[T, C, H, W] in 0..1; a picture has T = 1."""
        return read_once(self, raw, self._read)

    def _read(self, raw: Any) -> Tensor:
        if isinstance(raw, str | Path) and str(raw).lower().endswith(CLIPS):
            return read_clip(Path(raw), self.taken, self.channels)
        if isinstance(raw, list | tuple) and raw and not np.isscalar(raw[0]):
            pictures = [read_image(item, self.channels) for item in self._thin(list(raw))]
            if len({p.shape for p in pictures}) > 1:
                raise UserError(
                    f"{self.name}: the frames of a clip differ in size: {sorted({p.shape for p in pictures})}"
                )
            return torch.stack(pictures)
        if isinstance(raw, np.ndarray | Tensor) and np.ndim(raw) in (3, 4) and not _is_picture(raw):
            if raw.shape[0] == 0:
                raise UserError(f"{self.name}: the clip has no frame")
            check_finite(raw, self.name)
            return self._read(list(raw))
        return read_image(raw, self.channels)[None]

    def _thin(self, frames: list[Any]) -> list[Any]:
        """At most `taken` of them, evenly spread."""
        return [frames[i] for i in spread(len(frames), self.taken)]

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Float[T, C, H, W] in 0..1 -> n = ceil(T / tubelet) rows columns tokens.

        patch: [n, C tubelet p p]. place: row of time and cell of the grid, Int[n, 2].
        """
        return self.patches(self.shown(value, rng), rng)

    def shown(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """What tokens are cut from, resized, cropped, normalised: Float[T, C, height, width]; a picture has T = 1."""
        return self.normalise(self.frame(value[None] if value.ndim == 3 else value, rng))

    def steady(self) -> tuple[str, ...]:
        """A crop that is not drawn is made once, with the still background that `moving` takes away."""
        if self.augment != "none" or self.views > 1:
            return ("read",)
        return ("read", "shown") if self.temporal_offset else ("read", "shown", "span")

    def frame(self, value: Tensor, rng: torch.Generator | None) -> Tensor:
        """Resize and crop (augmented in training): Float[T, C, H, W] -> Float[T, C, height, width] in 0..1."""
        if rng is None and self.view is not None:
            number, part = divmod(self.view, self.crops)
            seen = clip(value, number, self.clips, self.sample or self.frames)
            cover = enlarged(self.sides, self.short_side) if self.crops == 1 else self.sides
            return crop(resize_cover(seen, cover), self.sides, part, self.crops)
        if rng is None or self.augment == "none":
            return centre_crop(value, self.sides, self.short_side)
        if self.augment == "crop":
            cover = self.sides
            if len(value) > 1:
                drawn = 256 + 64 * float(torch.rand(1, generator=rng))
                cover = int(cover[0] * drawn / 224), int(cover[1] * drawn / 224)
            return crop_and_flip(resize_cover(value, cover), self.sides, self.flip, rng)
        return strong(value, self.sides, self.flip, rng)

    def normalise(self, value: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (self.mean, self.std))
        value = (value - mean) / std
        return value - value.median(0).values if self.moving and len(value) > 1 else value

    def patches(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Normalised Float[T, C, H, W] -> the span. UserError when a table has too few rows.

        Patches are counted row by row and patch k stands at row k of the spatial table, as in the official code: frames
        of another shape than the model's are taken while the table has a row for each patch.
        """
        t, c, h, w = value.shape
        if self.frames and t > self.frames:
            raise UserError(f"{self.name}: {t} frames, the model takes {self.frames}; thin the clip or raise frames")
        p, k, places = self.patch, self.tubelet, self.grid[0] * self.grid[1]
        rows, columns = h // p, w // p
        if h % p or w % p or not 1 <= rows * columns <= places:
            raise UserError(
                f"{self.name}: frames of {h} x {w} pixels, the model takes {' x '.join(map(str, self.sides))}, "
                f"or whole patches of {p} pixels, {places} at most"
            )
        if t % k:  # the last frame stands still
            value = torch.cat([value, value[-1:].expand(k - t % k, c, h, w)])
        steps = len(value) // k
        cut = value.reshape(steps, k, c, rows, p, columns, p).permute(0, 3, 5, 2, 1, 4, 6)
        cut = cut.reshape(steps * rows * columns, -1)
        late = max(self.rows - steps, 0)
        start = int(torch.randint(late + 1, (1,), generator=rng)) if rng is not None and self.temporal_offset else 0
        place = torch.cartesian_prod(torch.arange(start, start + steps), torch.arange(rows * columns)).reshape(-1, 2)
        grid = (rows, columns) if steps == 1 else (steps, rows, columns)
        return Span(self.shares or self.name, {"patch": cut, "place": place}, len(cut), grid=grid)

    def mirror(self, value: Tensor) -> Tensor:
        """The clip or picture seen in a mirror."""
        return value.flip(-1)

    def content(self) -> dict[str, float]:
        return {"patch": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        """The middle frame."""
        clip = self.read(raw)
        return {"kind": "image", "pixels": clip[len(clip) // 2].mean(0).tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.vision.examples import video

        return video(cls.axes == 2)

    def build(self, width: int) -> nn.Module:
        return nn.Identity() if self.shares else VideoTokens(replace(self), width)


@dataclass
class Picture(Video):
    """Pictures with the tokens of a one-frame clip, in Hugging Face's form pixel_values [B, C, H, W]."""

    name: ClassVar[str] = "image"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values",)

    axes: ClassVar[int] = 2

    def one_grid(self) -> tuple[int, int]:
        return self.grid

    def tensors(self, values: list[Tensor]) -> dict[str, Tensor]:
        """Pictures -> pixel_values Float[B, C, height, width]."""
        return {"pixel_values": super().tensors(values)["pixel_values_videos"].squeeze(1)}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        return super().padded({"pixel_values_videos": tensors["pixel_values"].unsqueeze(1)})

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        return super().padded_place({"pixel_values_videos": tensors["pixel_values"].unsqueeze(1)}, real)


def _is_picture(raw: Any) -> bool:
    """Whether a 3-axis array is [H, W, C] or [C, H, W] (and not the grey clip [T, H, W])."""
    return raw.ndim == 3 and (raw.shape[-1] in (1, 3, 4) or raw.shape[0] in (1, 3, 4))
