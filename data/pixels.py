"""A picture's file -> its pixels, whatever mode it is in: 0..1, upright, nothing transparent, its first page.

8 bits a colour    0..255 -> 0..1; palettes, CMYK, YCbCr, Lab and HSV as RGB
16-bit grey        0..65535 -> 0..1
32-bit, floats     0..1 as they are, whole numbers up to 255 as 8 bits, others by the picture's own range
transparency       drawn on `background`, a grey in 0..1
orientation        as EXIF says
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError

MAX_PIXELS = 100_000_000  # larger pictures are refused before they are decoded (decompression bombs)
WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes that PIL's own conversion to 8 bits would clip


def pixels_of(raw: Any, background: float = 1.0, grey: bool = False) -> np.ndarray:
    """PIL image or path -> uint8 [H, W, 3] or [H, W] (always, where `grey`), or float32 [H, W] in 0..1.

    UserError: unreadable, too large.
    """
    from PIL import Image, ImageOps

    try:
        picture = raw if hasattr(raw, "convert") else Image.open(raw)
        if picture.width * picture.height > MAX_PIXELS:
            raise UserError(
                f"image {raw}: {picture.width} x {picture.height} pixels is over {MAX_PIXELS}; scale it down"
            )
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in WIDE:
            return in_range(np.asarray(picture))
        if picture.has_transparency_data:
            shade = round(background * 255)
            under = Image.new("RGBA", picture.size, (shade, shade, shade, 255))
            mode = plain_mode(picture.mode)
            picture = Image.alpha_composite(under, picture.convert("RGBA")).convert(mode)
        wanted = "L" if grey else plain_mode(picture.mode)
        return np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"image {raw}: cannot be read ({error}); is it a picture and complete?") from error


def plain_mode(mode: str) -> str:
    """The mode of 8 bits a colour that a mode of pictures becomes."""
    return "L" if mode in ("1", "L", "LA", "La") else "RGB"


def in_range(array: np.ndarray) -> np.ndarray:
    """Values of a picture of more than 8 bits -> float32 in 0..1; see the module. UserError for NaN and infinity."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return array.astype(np.float32) / 65535
    found = array.astype(np.float64)
    if not np.isfinite(found).all():
        raise UserError(f"image: {int((~np.isfinite(found)).sum())} of {found.size} values are NaN or infinite")
    low, high = float(found.min()), float(found.max())
    if low >= 0 and high <= 1 and array.dtype.kind == "f":
        return found.astype(np.float32)
    if low >= 0 and high <= 255 and (array.dtype.kind != "f" or high == low or bool((found == np.rint(found)).all())):
        return (found / 255).astype(np.float32)
    if high == low:  # one shade, of an unknown range
        return np.full(found.shape, 0.5, dtype=np.float32)
    return ((found - low) / (high - low)).astype(np.float32)


def pages(raw: Any) -> int:
    """How many pages or frames a picture (PIL image or its path) has, of which the first is read."""
    from PIL import Image

    if isinstance(raw, Path):
        with Image.open(raw) as opened:
            return pages(opened)
    return int(getattr(raw, "n_frames", 1))
