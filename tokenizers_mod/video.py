"""Pictures and clips of one size as patches with fixed spatial and learned temporal positions.

Uni-Perceiver's vision embedding (2112.01522, section 3; spec 1.6), before the model's shared embedding norm:

    token = W patch + b + Temporal[t] + Spatial[row, column]        a picture is a clip of one frame

W is a convolution with stride = kernel, written as a linear map of the flattened patch. Tokens run frame by frame,
each frame row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from data.errors import UserError
from data.types import Span
from tokenizers_mod.augment import crop_and_flip, strong
from tokenizers_mod.base import Modality, check_finite
from tokenizers_mod.image import read_image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIPS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".m4v")
AUGMENTATIONS = ("none", "crop", "strong")


@dataclass
class Video(Modality):
    """Clips [T, C, H, W] and pictures [C, H, W], brought to size x size pixels a frame.

    frames: rows of the temporal table. sample: frames taken of a longer clip, evenly spread; 0 = as many as rows.
    coordinate_scale: factor of row and column in the sine-cosine table; 0 = 160 / size, so that a grid covers the
        coordinates that 160 pixels had (spec 1.6). table: "sincos" (fixed) or "learned" spatial positions.
    temporal_offset: in training a clip of T frames starts at a random row 0..frames - T of the table (spec 1.6).
    shares: name of another Video of the model whose weights this one uses, and then has none of its own.
    augment: training: "crop" (short side to size, random crop, flip), "strong" (random resized crop, flip,
        RandAugment m9 std 0.5, random erasing 0.25) or "none" (spec 1.14). short_side: evaluation's resize of the
        short side as a multiple of size (256 / 224 for ImageNet) before the centre crop. flip: its probability.
    mean, std: one value or one a channel.
    """

    name: ClassVar[str] = "video"
    raw: ClassVar[str] = (
        "clip [T, H, W], [T, H, W, C] or [T, C, H, W], list of pictures, path (video needs av), or picture"
    )
    count: ClassVar[str] = "min(T, sample or frames) * (size / patch)^2"
    kind: ClassVar[str] = "vision"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)

    size: int = 64
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

    def __post_init__(self) -> None:
        if min(self.size, self.patch, self.channels, self.frames) < 1 or self.size % self.patch:
            raise UserError(f"{self.name}: size {self.size} must be a positive multiple of patch {self.patch}")
        for key, valid in (("table", ("sincos", "learned")), ("augment", AUGMENTATIONS)):
            if getattr(self, key) not in valid:
                raise UserError(f"{self.name}: {key}={getattr(self, key)!r}; valid: {', '.join(valid)}")
        if not 0 <= self.sample <= self.frames:
            raise UserError(
                f"{self.name}: sample {self.sample} frames of a table of {self.frames}; lower one, raise the other"
            )
        if self.short_side < 1:
            raise UserError(f"{self.name}: short_side is {self.short_side}; the centre crop needs at least 1")

    @property
    def taken(self) -> int:
        """Frames of a long clip that are looked at."""
        return self.sample or self.frames

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.size // self.patch

    # --- CPU half ---

    def read(self, raw: Any) -> Tensor:
        """A clip or a picture -> Float[T, C, H, W] in 0..1; a picture has T = 1."""
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
            return self.read(list(raw))
        return read_image(raw, self.channels)[None]

    def _thin(self, frames: list[Any]) -> list[Any]:
        """At most `taken` of them, evenly spread."""
        if len(frames) <= self.taken:
            return frames
        return [frames[i] for i in np.linspace(0, len(frames) - 1, self.taken).round().astype(int)]

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Float[T, C, H, W] in 0..1 -> T * grid^2 tokens: patch [n, C * p * p], place Int[n, 2] (frame, cell)."""
        value = value[None] if value.ndim == 3 else value
        return self.patches(self.normalise(self.frame(value, rng)), rng)

    def frame(self, value: Tensor, rng: torch.Generator | None) -> Tensor:
        """Resize and crop (augmented in training): Float[T, C, H, W] -> Float[T, C, size, size] in 0..1."""
        if rng is None or self.augment == "none":
            return centre_crop(value, self.size, round(self.size * self.short_side))
        if self.augment == "crop":
            short = (
                self.size
                if len(value) == 1
                else int(self.size * (256 + 64 * float(torch.rand(1, generator=rng))) / 224)
            )
            return crop_and_flip(resize_short(value, short), self.size, self.flip, rng)
        return strong(value, self.size, self.flip, rng)

    def normalise(self, value: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return (value - mean) / std

    def patches(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Normalised Float[T, C, size, size] -> the span. UserError when the clip is longer than the table."""
        t, c, h, w = value.shape
        if t > self.frames:
            raise UserError(f"{self.name}: {t} frames, the model takes {self.frames}; thin the clip or raise frames")
        if (h, w) != (self.size, self.size):
            raise UserError(f"{self.name}: frames of {h} x {w} pixels, the model takes {self.size} x {self.size}")
        g, p = self.grid, self.patch
        cut = value.reshape(t, c, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(t * g * g, c * p * p)
        late = self.frames - t
        start = int(torch.randint(late + 1, (1,), generator=rng)) if rng is not None and self.temporal_offset else 0
        place = torch.cartesian_prod(torch.arange(start, start + t), torch.arange(g * g)).reshape(-1, 2)
        grid = (g, g) if t == 1 else (t, g, g)
        return Span(self.shares or self.name, {"patch": cut, "place": place}, t * g * g, grid=grid)

    def mirror(self, value: Tensor) -> Tensor:
        """The clip or picture seen in a mirror."""
        return value.flip(-1)

    def show(self, raw: Any) -> dict[str, Any]:
        """The middle frame."""
        clip = self.read(raw)
        return {"kind": "image", "pixels": clip[len(clip) // 2].mean(0).tolist()}

    # --- tensors in Hugging Face's form ---

    def tensors(self, values: list[Tensor]) -> dict[str, Tensor]:
        """Clips of one length -> pixel_values_videos Float[B, T, C, size, size]."""
        clips = [self.normalise(self.frame(v[None] if v.ndim == 3 else v, None)) for v in values]
        if len({len(c) for c in clips}) > 1:
            raise UserError(
                f"{self.name}: clips of {sorted({len(c) for c in clips})} frames in one tensor; give one length"
            )
        return {"pixel_values_videos": torch.stack(clips)}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """pixel_values_videos -> flat data of B * T * grid^2 tokens; all are real."""
        spans = [self.patches(clip.cpu()) for clip in tensors["pixel_values_videos"]]
        device = tensors["pixel_values_videos"].device
        return {key: torch.cat([s.data[key] for s in spans]).to(device) for key in ("patch", "place")}, None

    def build(self, width: int) -> nn.Module:
        return nn.Identity() if self.shares else VideoTokens(replace(self), width)


@dataclass
class Picture(Video):
    """Pictures with the tokens of a one-frame clip, in Hugging Face's form pixel_values [B, C, H, W]."""

    name: ClassVar[str] = "image"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values",)

    def tensors(self, values: list[Tensor]) -> dict[str, Tensor]:
        """Pictures -> pixel_values Float[B, C, size, size]."""
        return {"pixel_values": super().tensors(values)["pixel_values_videos"].squeeze(1)}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        return super().padded({"pixel_values_videos": tensors["pixel_values"].unsqueeze(1)})


class VideoTokens(nn.Module):
    """forward({'patch': Float[N, C * p * p], 'place': Int[N, 2]}) -> Float[N, width]."""

    def __init__(self, settings: Video, width: int) -> None:
        super().__init__()
        g = settings.grid
        self.projection = nn.Linear(settings.channels * settings.patch**2, width, bias=settings.bias)
        nn.init.xavier_uniform_(self.projection.weight)  # on the flattened kernel (spec 1.12)
        if settings.bias:
            nn.init.zeros_(self.projection.bias)
        self.temporal = nn.Embedding(settings.frames, width)
        nn.init.normal_(self.temporal.weight, std=0.02)
        if settings.table == "learned":
            self.spatial = nn.Parameter(torch.empty(g * g, width).normal_(std=0.02))
        else:
            self.register_buffer("spatial", spatial_table(g, width, settings.coordinate_scale or 160 / settings.size))

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        frame, cell = data["place"].unbind(-1)
        patches = self.projection(data["patch"].to(self.projection.weight.dtype))
        return patches + self.temporal(frame) + self.spatial[cell].to(patches.dtype)


def spatial_table(grid: int, width: int, scale: float) -> Tensor:
    """[sin(r w), cos(r w), sin(c w), cos(c w)] with w_k = 10000^(-k/q), q = width / 4: Float[grid * grid, width].

    r and c are row and column times `scale` (spec 1.6). Computed in float32, as the published tables are.
    """
    if width % 4:
        raise UserError(f"video: width {width} is not a multiple of 4, which 2-D sine-cosine positions need")
    q = width // 4
    omega = 1.0 / 10000 ** (torch.arange(q, dtype=torch.float32) / q)
    cells = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).reshape(-1, 2).float() * scale
    angles = cells.unsqueeze(-1) * omega  # [cells, (row, column), q]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def resize_short(value: Tensor, short: int) -> Tensor:
    """Bicubic to this short side, the aspect kept: Float[T, C, H, W]."""
    h, w = value.shape[-2:]
    target = (short, max(short, round(w * short / h))) if h <= w else (max(short, round(h * short / w)), short)
    if (h, w) == target:
        return value
    return interpolate(value, target, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def centre_crop(value: Tensor, size: int, short: int) -> Tensor:
    """Short side to `short`, then the middle size x size: Float[T, C, size, size]."""
    value = resize_short(value, short)
    top, left = ((s - size) // 2 for s in value.shape[-2:])
    return value[..., top : top + size, left : left + size]


def _is_picture(raw: Any) -> bool:
    """Whether a 3-axis array is [H, W, C] or [C, H, W] (and not the grey clip [T, H, W])."""
    return raw.ndim == 3 and (raw.shape[-1] in (1, 3, 4) or raw.shape[0] in (1, 3, 4))


def read_clip(path: Path, frames: int, channels: int) -> Tensor:
    """At most `frames` frames of a video file, evenly spread: Float[T, C, H, W] in 0..1."""
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path}: video files need PyAV; pip install 'generalist[video]'") from error
    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_image() for frame in container.decode(video=0)]
    except Exception as error:
        raise UserError(f"{path}: cannot be decoded ({error}); is it a video and complete?") from error
    if not pictures:
        raise UserError(f"{path}: no frame in it")
    keep = np.linspace(0, len(pictures) - 1, min(frames, len(pictures))).round().astype(int)
    return torch.stack([read_image(pictures[i], channels) for i in keep])
