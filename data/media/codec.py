"""A field of a sample <-> the bytes of one member of a shard; the member's ending says how.

`.json` scalars and lists, `.txt` text, `.cls` class index or name, `.npy` arrays, pictures and sounds as they are.
The endings are webdataset's, so that either side reads the other's shards. Pickles are refused: data is untrusted.
"""

from __future__ import annotations

import io
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, one_line
from generalist.data.base.files import check_regular
from generalist.data.base.foreign import file_of, is_picture, is_tensor
from generalist.data.media import arrays, jsons
from generalist.data.media.pictures import open_picture

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm")
SOUNDS = ("wav", "flac", "ogg", "mp3")
UNSAFE = ("pkl", "pyd", "pickle", "pth", "pt")
WRITTEN = date | time | Decimal  # kinds of cells that JSON has no form for; a datetime is a date
HEADS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\x00": "tif",
    b"MM\x00*": "tif",
    b"ID3": "mp3",
}


def encode(value: Any) -> tuple[str, bytes] | None:
    """A value -> (ending, bytes), or None for what belongs in the sample's JSON. UserError for other types."""
    if isinstance(value, np.generic) or value is None or isinstance(value, str | int | float | bool | WRITTEN):
        return None
    if isinstance(value, Path):
        try:
            check_regular(value, "file")
            return value.suffix.lower().lstrip(".") or "bin", value.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {value} ({error.strerror})") from error
    if isinstance(value, bytes):
        return next((ending for head, ending in HEADS.items() if value.startswith(head)), "bin"), value
    if is_picture(value):
        return _picture(value)
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise UserError("an array of Python objects cannot be stored; use numbers or text")
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        return "npy", buffer.getvalue()
    if isinstance(value, list | tuple | dict):
        return None
    raise UserError(f"a {type(value).__name__} cannot be stored; use text, numbers, arrays, pictures, bytes or paths")


def _picture(value: Any) -> tuple[str, bytes]:
    """The file that a picture was read from, unchanged; a picture made in memory as PNG, without loss."""
    kept = file_of(value)
    if kept is not None:
        return {"JPEG": "jpg", "PNG": "png"}.get(value.format, str(value.format).lower()), kept
    buffer = io.BytesIO()
    value.save(buffer, format="PNG")
    return "png", buffer.getvalue()


def plain(value: Any) -> Any:
    """A value as JSON takes it: numpy scalars, arrays and tuples within lists and dicts, dates in ISO form."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def decode(name: str, raw: bytes) -> Any:
    """The bytes of a member called `name` -> its value. UserError when they are not what the ending says."""
    ending = name.rsplit(".", 1)[-1].lower()
    if ending in UNSAFE:
        raise UserError(f"member .{name}: pickled data can run code and is not read; store arrays as .npy")
    try:
        if ending == "json":
            return jsons.loads(raw, f"member .{name}")
        if ending in ("txt", "text", "caption"):
            return raw.decode("utf-8")
        if ending in ("cls", "cls2", "index", "inx"):
            return _class(raw.decode("utf-8").strip())
        if ending == "npy":
            return arrays.load(raw, f"member .{name}")
        if ending in PICTURES:
            return picture(raw)
    except UserError:
        raise
    except Exception as error:  # a damaged member fails in its library's own way
        reason = one_line(error)
        raise UserError(f"member .{name}: {len(raw)} bytes that are not a .{ending} ({reason})") from error
    return raw


def _class(text: str) -> int | str:
    """A class's number, or its name where no number stands there; "007" is a name."""
    return int(text) if text.lstrip("-").isdigit() and str(int(text)) == text else text


def shows(raw: bytes) -> bool:
    """Whether bytes begin as the files of pictures do."""
    if raw[:4] == b"RIFF":  # of sounds too
        return raw[8:12] == b"WEBP"
    return any(raw.startswith(head) and ending in PICTURES for head, ending in HEADS.items())


def picture(raw: bytes) -> Any:
    """Bytes -> a PIL image that is decoded when its pixels are asked for and remembers its bytes."""
    opened: Any = open_picture(io.BytesIO(raw))
    opened.encoded = raw
    return opened
