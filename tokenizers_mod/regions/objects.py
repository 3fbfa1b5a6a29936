"""The true objects of a picture, and the augmentations that move picture, boxes and masks together.

Boxes are (left, top, right, bottom) in pixels here, as crops and flips are; the proposers' fractions are made last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass
class PixelObjects:
    """n objects of a picture of H x W pixels: boxes Float[n 4], classes Int[n], masks Bool[n H W] or None."""

    boxes: Tensor
    classes: Tensor
    masks: Tensor | None = None

    def keep(self, rows: Tensor) -> PixelObjects:
        masks = None if self.masks is None else self.masks[rows]
        return PixelObjects(self.boxes[rows], self.classes[rows], masks)

    @property
    def area(self) -> Tensor:
        size = (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=0)
        return size[:, 0] * size[:, 1]


@dataclass
class Augment:
    """Training only. flip_x, flip_y: probabilities; zoom: smallest share of a side that a crop keeps (1 = none);
    zoom_rate: how often; keep: smallest share of an object's box that a crop must leave; light: largest relative change
    of brightness and contrast.
    """

    flip_x: float = 0.5
    flip_y: float = 0.0
    zoom: float = 0.65
    zoom_rate: float = 0.7
    keep: float = 0.35
    light: float = 0.2

    def __call__(self, image: Tensor, objects: PixelObjects, rng: torch.Generator) -> tuple[Tensor, PixelObjects]:
        """Float[C H W] in 0..1 and its objects -> the same, changed at random."""
        draw = torch.rand(8, generator=rng).tolist()
        if draw[0] < self.zoom_rate and self.zoom < 1:
            image, objects = crop(image, objects, self._window(image, draw[1:4]), self.keep)
        if draw[4] < self.flip_x:
            image, objects = flip(image, objects, horizontal=True)
        if draw[5] < self.flip_y:
            image, objects = flip(image, objects, horizontal=False)
        if self.light:
            bright, contrast = (1 + self.light * (2 * d - 1) for d in draw[6:8])
            mean = image.mean()
            image = (((image - mean) * contrast + mean) * bright).clamp(0, 1)
        return image, objects

    def _window(self, image: Tensor, draw: list[float]) -> tuple[int, int, int, int]:
        _, h, w = image.shape
        share = self.zoom + (1 - self.zoom) * draw[0]
        rows, cols = max(1, round(h * share)), max(1, round(w * share))
        return round(draw[1] * (h - rows)), round(draw[2] * (w - cols)), rows, cols


def crop(
    image: Tensor, objects: PixelObjects, window: tuple[int, int, int, int], keep: float
) -> tuple[Tensor, PixelObjects]:
    """window: (top, left, rows, columns). Objects of which less than `keep` of the box is left are dropped."""
    top, left, rows, cols = window
    before = objects.area
    shift = torch.tensor([left, top, left, top], dtype=objects.boxes.dtype)
    boxes = objects.boxes - shift
    boxes = torch.stack([boxes[:, 0::2].clamp(0, cols), boxes[:, 1::2].clamp(0, rows)], -1).flatten(1)
    masks = None if objects.masks is None else objects.masks[:, top : top + rows, left : left + cols]
    cut = PixelObjects(boxes, objects.classes, masks)
    stays = (cut.area > keep * before) & (cut.area > 0)
    return image[:, top : top + rows, left : left + cols], cut.keep(stays)


def flip(image: Tensor, objects: PixelObjects, horizontal: bool) -> tuple[Tensor, PixelObjects]:
    """Mirror left-right (horizontal) or top-bottom."""
    axis, first = (-1, 0) if horizontal else (-2, 1)
    size = image.shape[axis]
    boxes = objects.boxes.clone()
    boxes[:, first] = size - objects.boxes[:, first + 2]
    boxes[:, first + 2] = size - objects.boxes[:, first]
    masks = None if objects.masks is None else objects.masks.flip(axis)
    return image.flip(axis), PixelObjects(boxes, objects.classes, masks)


def to_fractions(boxes: Tensor, height: int, width: int) -> Tensor:
    """(left, top, right, bottom) in pixels -> (centre x, centre y, width, height) in 0..1: Float[n 4] x 2."""
    scaled = boxes / torch.tensor([width, height, width, height], dtype=boxes.dtype)
    return torch.cat([(scaled[:, :2] + scaled[:, 2:]) / 2, scaled[:, 2:] - scaled[:, :2]], dim=1)


def to_pixels(boxes: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `to_fractions`, cut to the picture."""
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1).clamp(0, 1)
    return corners * torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)


def shrink_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Bool[n H W] -> Bool[n height width]: True where at least half of the cell is."""
    if not len(masks):
        return torch.zeros(0, height, width, dtype=torch.bool)
    return interpolate(masks.float().unsqueeze(1), (height, width), mode="area").squeeze(1) >= 0.5
