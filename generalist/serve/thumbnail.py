"""A small picture of a file of the index, for the page."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import ImageOps

from generalist.data.base.errors import UserError, blame
from generalist.data.media.codec import PICTURES
from generalist.data.media.kinds import ending
from generalist.data.media.pictures import bounded, open_picture

SIDE = 192  # px


def thumbnail(path: Path) -> bytes:
    """PNG bytes, no side above SIDE pixels. UserError for a file that is no picture."""
    if ending(path) not in PICTURES:
        raise UserError(f"{path.name} is no picture")
    try:
        picture = bounded(open_picture(path, path.name), path.name, whole=False, enough=2 * SIDE)
        picture = ImageOps.exif_transpose(picture)
        picture.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        picture.convert("RGB").save(out, "PNG")
    except Exception as error:  # Pillow's own, one for each format
        raise blame(error, path.name) from error
    return out.getvalue()
