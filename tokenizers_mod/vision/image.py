"""Images of any size and aspect as flattened patches; positions are coordinates, not a table row.

Vision Transformer patches (2010.11929, section 3.1): a linear map of each flattened patch, which equals
a convolution with stride = kernel. The image keeps its aspect (NaViT, 2307.06304): its longer side is
brought to `size`, then both sides to whole patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from generalist.data.base.constants import constant
from generalist.data.base.errors import UserError
from generalist.data.base.foreign import is_picture
from generalist.data.batch.cells import cells
from generalist.data.batch.types import Span
from generalist.data.media import arrays
from generalist.data.media.pictures import check_side
from generalist.data.media.pixels import in_range, pixels_of
from generalist.tokenizers_mod.base.base import Modality, check_finite
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.padded import stack_padded
from generalist.tokenizers_mod.base.raw import as_array
from generalist.tokenizers_mod.base.views import read_once
from generalist.tokenizers_mod.vision.patch_tokens import PatchEmbedding
from generalist.tokenizers_mod.vision.stem import ConvStem

LARGEST = 1e7  # values beyond are no grey levels, and their squares are no numbers
ENOUGH = 2  # times the pixels that are shown: a picture decoded smaller is resized as well as ever
MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))  # of the views, down and right


def read_image(raw: Any, channels: int, background: float = 1.0, whole: bool = True, enough: int = 0) -> Tensor:
    """PIL image, path, or array [H, W] / [H, W, C] / [C, H, W] -> float32 [channels, H, W] in 0..1.

    Files as `generalist.data.media.pixels` reads them, .npy as the array in it. Arrays of numbers are taken to lie in
    0..1 when their
    maximum is at most 1, in 0..255 up to there, and else in their own range. background: a grey in 0..1 that is seen
    through what is transparent. whole=False: a JPEG that is too large decoded, or much longer than `enough` pixels, may
    come smaller (`generalist.data.media.pictures`).
    """
    if isinstance(raw, str | Path) and str(raw).lower().endswith(".npy"):
        raw = arrays.load(raw, f"image {raw}")
    if isinstance(raw, str | Path) or is_picture(raw):
        array = pixels_of(raw, background, channels == 1, whole, enough)
        image = torch.from_numpy(np.array(array)).float()
        image = image.div_(255) if array.dtype == np.uint8 else image
        return _fit_channels(image[None] if image.ndim == 2 else image.permute(2, 0, 1), channels, background)
    array = as_array(raw, "image")
    if array.dtype.kind not in "iufb" or array.ndim not in (2, 3) or array.size == 0:
        raise UserError(f"image: expected [H, W], [H, W, C] or [C, H, W] with at least one pixel, got {array.shape}")
    shorter, longer = sorted(array.shape)[-2:]
    check_side(shorter, longer, "image")
    check_finite(array, "image")
    if array.dtype.kind != "b" and max(abs(float(array.min())), abs(float(array.max()))) > LARGEST:
        raise UserError(f"image: values up to {np.abs(array.astype(float)).max():.3g}; bring them to 0..1 or 0..255")
    if array.ndim == 2:
        array = array[None]
    elif array.shape[0] not in (1, 3, 4) and array.shape[-1] in (1, 3, 4):
        array = array.transpose(2, 0, 1)
    if array.dtype == np.uint8:
        image = torch.from_numpy(np.ascontiguousarray(array)).float() / 255
    elif array.dtype == np.uint16 or (array.dtype.kind in "iuf" and array.max() > 255):
        image = torch.from_numpy(in_range(array))
    else:
        image = torch.from_numpy(array.astype(np.float32))
        image = image / 255 if image.max() > 1 else image
    return _fit_channels(image, channels, background)


def _fit_channels(image: Tensor, channels: int, background: float) -> Tensor:
    have = image.shape[0]
    if have == channels:
        return image
    if have == 4:  # RGBA
        image = image[:3] * image[3:] + background * (1 - image[3:])
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1:
        return image.expand(channels, -1, -1)
    if channels == 1 and image.shape[0] == 3:
        return image.mean(0, keepdim=True)
    raise UserError(f"image: {have} channels given, the model takes {channels}")


@dataclass
class Image(Modality):
    """Pictures. n = ceil(H / patch) * ceil(W / patch) tokens after the longer side is `size`.

    stem: channels of a convolutional stem inside each patch (`generalist.tokenizers_mod.vision.stem`), 0 = a linear
    map. It lets patches be large (few tokens) and learns small sets of pictures faster.
    views: evaluation looks at so many of the nine pictures moved by at most one pixel (as it is, to the four sides, to
    the corners), which training with `shift` has seen, and averages their probabilities
    (`generalist.tokenizers_mod.base.views`).
    zoom: in training a random window is shown, at least 1 - zoom of the side and at most `shift` beyond it.
    invert: in training the share of the pictures whose light and dark change places.
    channels: 3 for colour (grey pictures are read as three equal channels), 1 for grey.
    background: the grey in 0..1 that is seen through what is transparent.
    quick: a JPEG of more than four times `size` pixels is decoded at 1/2, 1/4 or 1/8 of its size, not below twice it.

    >>> image = Image(size=32, patch=8)
    >>> image.span(image.read(np.zeros((20, 40, 3), dtype=np.uint8))).grid  # the longer side becomes 32 pixels
    (2, 4)
    """

    name: ClassVar[str] = "image"
    raw: ClassVar[str] = "path, PIL image, array [H, W], [H, W, C] or [C, H, W], any mode and size"
    count: ClassVar[str] = "max(1, round(size * H / max(H, W) / patch)) * max(1, round(size * W / max(H, W) / patch))"
    kind: ClassVar[str] = "vision"
    device_keys: ClassVar[tuple[str, ...]] = ("stem",)
    worth: ClassVar[int] = 1024  # a small picture is decoded as fast as its file is read

    size: int = 32
    patch: int = 8
    channels: int = 3
    mean: float = 0.5
    std: float = 0.5
    shift: int = 0  # training: random translation by up to this many pixels
    # training: a random window, at least 1 - zoom of the side and at most `shift` beyond, is shown
    zoom: float = field(default=0.0, kw_only=True)
    # training: share of the pictures whose light and dark change places
    invert: float = field(default=0.0, kw_only=True)
    stem: int = 0
    views: int = 1
    background: float = 1.0
    quick: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not 1 <= self.views <= (len(MOVES) if self.shift else 1):
            wanted = "it is 1 to 9, and more than one need a shift of at least 1"
            raise UserError(f"{self.name}: views is {self.views} with shift {self.shift}; {wanted}")
        if self.stem < 0:
            raise UserError(f"{self.name}: stem is {self.stem} channels; it must be at least 0 (0 = a linear map)")
        if min(self.size, self.patch, self.channels) < 1 or self.shift < 0 or self.std <= 0:
            raise UserError(f"{self.name}: size, patch and channels must be >= 1, shift >= 0 and std > 0")
        if not (0 <= self.zoom < 1 and 0 <= self.invert <= 1):
            raise UserError(f"{self.name}: zoom is {self.zoom} and invert {self.invert}; both are shares, zoom below 1")
        if not 0 <= self.background <= 1:
            raise UserError(f"{self.name}: background is {self.background}; it is a grey from 0 (black) to 1 (white)")
        if self.size % self.patch:
            raise UserError(f"{self.name}: size {self.size} is not a multiple of patch {self.patch}")

    def read(self, raw: Any) -> Tensor:
        enough = ENOUGH * self.size * self.quick
        return read_once(self, raw, lambda one: read_image(one, self.channels, self.background, False, enough))

    def plain(self, raw: Any) -> Any:
        return {"pixels": self.read(raw).numpy()}

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Float [C, H, W] in 0..1 -> n patches: data patch [n, C * patch * patch], position [n, 2] (row, column)."""
        value = self.fitted(value, rng)
        rows, cols = value.shape[1] // self.patch, value.shape[2] // self.patch
        patches, position = self.cut(value[None]), places(rows, cols)
        return Span(self.name, {"patch": patches, "position": position}, rows * cols, grid=(rows, cols))

    def fitted(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Float [C, H, W] in 0..1 -> resized to whole patches, shifted in training, normalised: [C, rows p, cols p]."""
        value, s = self.sized(value), self.shift
        if rng is not None and self.invert and float(torch.rand(1, generator=rng)) < self.invert:
            value = (1 - 2 * self.mean) / self.std - value
        if rng is not None and self.zoom:
            return window(value, s, self.zoom, rng)
        if not s:
            return value
        dy, dx = MOVES[self.view or 0] if rng is None else torch.randint(-s, s + 1, (2,), generator=rng).tolist()
        return value[:, s - dy : value.shape[1] - s - dy, s - dx : value.shape[2] - s - dx]

    def sized(self, value: Tensor) -> Tensor:
        """The picture as large as it is shown and normalised, with `shift` more pixels on every side like the border's.

        [C, H, W] in 0..1 -> [C, rows p + 2 shift, cols p + 2 shift].
        """
        _, h, w = value.shape
        rows, cols = self.shape(h, w)
        target = (rows * self.patch, cols * self.patch)
        if (h, w) != target:
            larger = h < target[0] or w < target[1]
            value = interpolate(value[None], target, mode="bilinear", antialias=not larger, align_corners=False)[0]
        value = (value - self.mean) / self.std
        if self.shift:
            ys, xs = (beyond(n, self.shift) for n in target)
            value = value[:, ys][:, :, xs]
        return value

    def shape(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of patches of a picture of h x w pixels."""
        rows, cols = (max(1, round(self.size * side / max(h, w) / self.patch)) for side in (h, w))
        return rows, cols

    def steady(self) -> tuple[str, ...]:
        return ("read", "sized") if self.shift or self.zoom or self.invert else ("read", "sized", "span")

    def patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Float [B, C, rows p, cols p] -> patches [B n, C p p] and their positions [B n, 2], row by row."""
        rows, cols = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        return self.cut(pixels), places(rows, cols).to(pixels.device).repeat(pixels.shape[0], 1)

    def cut(self, pixels: Tensor) -> Tensor:
        """Float [B, C, rows p, cols p] -> patches [B n, C p p], row by row."""
        b, c, h, w = pixels.shape
        p = self.patch
        rows, cols = h // p, w // p
        return pixels.reshape(b, c, rows, p, cols, p).permute(0, 2, 4, 1, 3, 5).reshape(b * rows * cols, c * p * p)

    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_mask")

    def tensors(self, values: list[Tensor]) -> dict[str, Tensor]:
        """Pictures [C, H, W] -> pixel_values [B, C, H, W], normalised; pixel_mask Int[B H W] where sizes differ."""
        fitted = [self.fitted(value) for value in values]
        pixels, real = stack_padded(fitted)
        return {"pixel_values": pixels} | ({} if bool(real.all()) else {"pixel_mask": real})

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """pixel_values [B, C, H, W], H and W whole patches; pixel_mask [B, H, W], 1 = real, or nothing."""
        pixels, real = tensors["pixel_values"], tensors.get("pixel_mask")
        if pixels.ndim != 4 or pixels.shape[1] != self.channels:
            wanted = f"[batch, {self.channels}, height, width]"
            raise UserError(f"image: pixel_values {tuple(pixels.shape)}; expected {wanted}")
        if pixels.shape[2] % self.patch or pixels.shape[3] % self.patch:
            raise UserError(f"image: {tuple(pixels.shape[2:])} pixels are not whole patches of {self.patch}")
        patches, position = self.patches(pixels)
        if max(pixels.shape[2:]) > self.size:  # beyond the grid of `size`
            position = position.float()
        if real is not None:
            real = real[:, :: self.patch, :: self.patch].flatten(1).bool()
        return {"patch": patches, "position": position}, real

    axes: ClassVar[int] = 2

    def largest_grid(self) -> tuple[int, int]:
        return self.shape(1, 1)

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        pixels = tensors["pixel_values"]
        b, rows, columns = pixels.shape[0], pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        cell = cells(rows, columns, pixels.device).expand(b, -1, -1)
        if real is None:
            size = torch.tensor([rows, columns], device=pixels.device).expand(b, 2)
        else:
            own = real.view(b, rows, columns)
            size = torch.stack([own.any(2).sum(1), own.any(1).sum(1)], dim=1)
        return torch.cat([cell, size.unsqueeze(1).expand_as(cell)], dim=-1)

    def content(self) -> dict[str, float]:
        return {"patch": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        return {"kind": "image", "pixels": self.read(raw).mean(0).tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.vision.examples import image

        return image()

    def build(self, width: int) -> nn.Module:
        inputs = self.channels * self.patch**2
        stem = ConvStem(self.channels, self.patch, self.stem, width) if self.stem else None
        return PatchEmbedding(inputs, width, self.size // self.patch, stem)


def window(value: Tensor, more: int, zoom: float, rng: torch.Generator) -> Tensor:
    """A random window of [C, h + 2 more, w + 2 more], 1 - zoom to 1 of the whole picture's sides or larger by its
    border, as [C, h, w]."""
    whole = [side - 2 * more for side in value.shape[1:]]
    low, high = 1 - zoom, min(1 + 2 * more / side for side in whole)
    share = low + (high - low) * float(torch.rand(1, generator=rng))
    sides = [max(1, round(share * side)) for side in whole]
    places = (
        int(torch.randint(have - side + 1, (1,), generator=rng))
        for have, side in zip(value.shape[1:], sides, strict=True)
    )
    (top, left), (height, width) = places, sides
    shown = value[None, :, top : top + height, left : left + width]
    return interpolate(shown, whole, mode="bilinear", antialias=False, align_corners=False)[0]


@constant(256)
def beyond(n: int, more: int) -> Tensor:
    """Which of n pixels in a row stand at -more ... n + more - 1, the first and the last repeated."""
    return torch.arange(-more, n + more).clamp(0, n - 1)


@constant(256)
def places(rows: int, cols: int) -> Tensor:
    """Row and column of the cells of a grid, row by row: Int [rows cols, 2]; one tensor for all pictures of a size."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).view(-1, 2)
