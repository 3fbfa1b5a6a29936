"""Pictures opened and decoded within `generalist.data.base.limits`: by the bytes that they decode to, not by those of
the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from generalist.data.base.errors import told
from generalist.data.base.files import check_regular, shown_path
from generalist.data.base.limits import MB, limits, over

BYTES = 4  # a pixel: what PIL keeps of a colour, what float32 takes of a grey


def open_picture(source: Any, what: str = "picture") -> Any:
    """A path or an open file -> a PIL image, decoded when its pixels are asked for.

    UserError: no ordinary file, too large for `picture_mb` (a JPEG is not: `bounded`). What PIL raises of other files
    is left to the caller, who knows what they were to be.
    """
    from PIL import Image

    if isinstance(source, str | Path):
        check_regular(source, what)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is narrower
        found = Image.open(source)
    if found.format != "JPEG":
        bounded(found, what)
    return found


def bounded(picture: Any, what: str = "picture", whole: bool = True, enough: int = 0) -> Any:
    """The picture, if its pixels may be decoded; else UserError.

    whole=False lets a JPEG that is too large be decoded at 1/2, 1/4 or 1/8 of its size, where nothing that belongs to
    it is told in its pixels. enough: so does a longer side of at least so many pixels that are left, 0 = no matter.
    """
    most = limits().picture_mb * MB // BYTES
    if not whole and getattr(picture, "format", None) == "JPEG":
        width, height = picture.width, picture.height
        fits = next((s for s in (1, 2, 4) if width * height <= most * s * s), 8)
        does = next((s for s in (8, 4, 2) if enough and max(width, height) >= s * enough), 1)
        if (scale := max(fits, does)) > 1:  # once: it counts from the full size
            picture.draft(None, (max(1, width // scale), max(1, height // scale)))
    check_side(picture.height, picture.width, what)
    if picture.width * picture.height > most:
        size = picture.width * picture.height * BYTES / MB
        raise over(what, "picture_mb", f"{picture.width} x {picture.height} pixels are {size:,.0f} MB decoded")
    return picture


def check_side(height: int, width: int, what: str) -> None:
    """UserError for a picture that is too long: resizing one axis lays the other one out whole."""
    if max(height, width) > limits().picture_side:
        raise over(what, "picture_side", f"{width} x {height} pixels")


def named(raw: Any) -> str:
    """How an error names what a picture came from."""
    return f"image {shown_path(raw)}" if isinstance(raw, str | Path) else f"image {told(raw)}"
