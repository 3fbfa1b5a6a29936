"""The outlines of annotated objects: polygons and run lengths -> masks, and what of an object is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.sources.annotations.annotated import corners_for_size


def check_object(note: dict[str, Any], height: int, width: int, masks: bool) -> np.ndarray:
    """A box (left, top, right, bottom) inside the picture, Float64[4]; UserError for what cannot be mended.

    A box that leaves the picture by less than a pixel is rounding and is cut; by more, it is an error.
    """
    try:
        box = np.asarray(note.get("bbox"), dtype=np.float64)
    except (TypeError, ValueError):
        box = np.zeros(0)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise UserError(f"the box {note.get('bbox')} is not four finite numbers")
    left, top, w, h = box.tolist()
    if corners_for_size(note, box):
        raise UserError(f"the box {note['bbox']} is left, top, right, bottom; COCO's is left, top, width, height")
    if w <= 0 or h <= 0:
        raise UserError(f"the box {note['bbox']} has no area")
    if left < -1 or top < -1 or left + w > width + 1 or top + h > height + 1:
        raise UserError(f"the box {note['bbox']} lies outside the picture of {width} x {height} pixels")
    corners = np.array([max(left, 0), max(top, 0), min(left + w, width), min(top + h, height)])
    if (corners[2:] <= corners[:2]).any():
        raise UserError(f"the box {note['bbox']} lies outside the picture of {width} x {height} pixels")
    if masks:
        decode_mask(note.get("segmentation"), height, width)
    return corners


def decode_mask(segment: Any, height: int, width: int) -> np.ndarray:
    """Polygons [[x, y, x, y, ...], ...] or RLE {"size", "counts"} -> Bool[height width]. UserError when broken."""
    try:
        from pycocotools import mask as rle_tools
    except ImportError as error:
        raise UserError("masks need pycocotools; install it: pip install 'generalist-encoder[detection]'") from error

    if isinstance(segment, list):
        if not segment:
            raise UserError("there is no mask")
        for polygon in segment:
            numbers = isinstance(polygon, list) and all(isinstance(v, int | float) for v in polygon)
            if not numbers or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
                raise UserError(f"a polygon needs at least three points x, y, got {str(polygon)[:60]}")
        rle = rle_tools.merge(rle_tools.frPyObjects(segment, height, width))
    elif isinstance(segment, dict):
        if list(segment.get("size", [])) != [height, width]:
            raise UserError(f"the mask's size {segment.get('size')} is not the picture's [{height}, {width}]")
        counts = segment.get("counts")
        if isinstance(counts, list):
            if not all(isinstance(c, int) and c >= 0 for c in counts) or sum(counts) != height * width:
                raise UserError(f"the mask's run lengths do not add up to {height} x {width} pixels")
            rle = rle_tools.frPyObjects(segment, height, width)
        elif isinstance(counts, str | bytes):
            if not rle_covers(counts, height * width):
                raise UserError(f"the mask's run lengths do not add up to {height} x {width} pixels")
            rle = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
        else:
            raise UserError("a run-length mask needs counts")
    else:
        raise UserError(f"a mask is a list of polygons or a run-length object, got {type(segment).__name__}")
    mask = rle_tools.decode(rle).astype(bool)
    if isinstance(segment, list) and not mask.any():  # thinner than a pixel: those under its corners
        corners = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segment]).astype(int)
        mask[corners[:, 1].clip(0, height - 1), corners[:, 0].clip(0, width - 1)] = True
    if not mask.any():
        raise UserError("the mask is empty")
    return mask


def rle_covers(counts: str | bytes, pixels: int) -> bool:
    """Whether a compressed run-length string is complete and its runs add up to `pixels`.

    The C decoder trusts its input and writes past the picture where they do not. Code: COCO API's rleToString, five
    bits a character from '0', bit 5 = more follows, differences to the run before the last from the third on.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(text) or not 48 <= text[at] < 112:
                return False
            c = text[at] - 48
            value |= (c & 0x1F) << shift
            more, at, shift = bool(c & 0x20), at + 1, shift + 5
            if not more and c & 0x10:
                value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return False
        runs.append(value)
    return sum(runs) == pixels
