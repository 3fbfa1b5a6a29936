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

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import is_picture
from generalist.data.media.pictures import bounded, named, open_picture

ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side
WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes that PIL's own conversion to 8 bits would clip


def pixels_of(raw: Any, background: float = 1.0, grey: bool = False, whole: bool = True, enough: int = 0) -> np.ndarray:
    """PIL image or path -> uint8 [H, W, 3] or [H, W] (always, where `grey`), or float32 [H, W] in 0..1.

    whole=False: a JPEG that is too large, or much longer than `enough` pixels, may come smaller
    (`generalist.data.media.pictures`). UserError: unreadable, too large.
    """
    from PIL import Image, ImageOps

    what = named(raw)
    try:
        picture = bounded(raw if is_picture(raw) else open_picture(raw, "image"), what, whole, enough)
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
        raise UserError(f"{what}: cannot be read ({error}); is it a picture and complete?") from error


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


def upright(picture: Any) -> tuple[int, int]:
    """(width, height) of a picture when it stands as EXIF says, before it is decoded."""
    turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (picture.height, picture.width) if turned else (picture.width, picture.height)


def pages(raw: Any) -> int:
    """How many pages or frames a picture (PIL image or its path) has, of which the first is read."""
    if isinstance(raw, Path):
        with open_picture(raw) as opened:
            return pages(opened)
    return int(getattr(raw, "n_frames", 1))
