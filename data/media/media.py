"""A field's value opened as what it is, for whoever vouches for it: pictures, sounds, clips and arrays are decoded.

`opened` says what was seen: a value that cannot be opened is a UserError, one of a kind that nobody here can open is
said as well ("not opened"), so that nothing passes for sound that was not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.base.files import is_regular
from generalist.data.base.foreign import is_picture
from generalist.data.media import arrays
from generalist.data.media.codec import HEADS, PICTURES, SOUNDS, picture
from generalist.data.media.kinds import CALLED, CLIPS, MEDIA, ending
from generalist.data.media.pictures import open_picture
from generalist.data.media.pixels import pages as pages_of
from generalist.data.media.pixels import pixels_of, upright
from generalist.data.media.sounds import heard, read_sound

ARRAYS = ("npy",)
TEXTS = ("txt", "caption", "json", "csv", "tsv", "smi", "xyz")
NAMES_A_FILE = {*CALLED, "file", "file_name", "filename", "filepath", "path", *PICTURES, *SOUNDS, *CLIPS}


@dataclass
class Opened:
    """kind: "picture", "sound", "clip", "array" or "". measures: {what is counted: its value}. notes: what is odd.

    size: (width, height) of a picture, upright.
    """

    kind: str = ""
    measures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


def opened(name: str, value: Any) -> Opened:
    """The value of field `name`, read and decoded whole. UserError when it cannot be."""
    if isinstance(value, str):
        return opened(name, Path(value)) if names_file(name, value) else Opened()
    if isinstance(value, Path):
        return _file(value)
    if isinstance(value, bytes):
        return _bytes(name, value)
    if is_picture(value):
        return _picture(value)
    if isinstance(value, dict) and "array" in value:
        rate = float(value.get("sampling_rate") or value.get("rate") or 0)
        return _sound(np.asarray(value["array"]), rate)
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(f"{int((~np.isfinite(value)).sum())} of {value.size} values are NaN or infinite")
        return Opened("array", {f"axis {i}": n for i, n in enumerate(value.shape)})
    return Opened()


def names_file(name: str, value: str) -> bool:
    """Whether a text is the path of a picture, sound or clip: it ends like one and the field is called like one."""
    one_line = len(value) < 1024 and "\n" not in value and "://" not in value
    return one_line and name.lower() in NAMES_A_FILE and any(ending(Path(value)) in e for e in MEDIA.values())


def _file(path: Path) -> Opened:
    if not is_regular(path):
        raise UserError(f"cannot read {path} (no such file)")
    kind = ending(path)
    size = {"kilobytes": path.stat().st_size / 1000}
    if kind in MEDIA["pictures"]:
        found = _picture(path)
    elif kind in MEDIA["sounds"]:
        found = _sound(*read_sound(path, whole=False), f"{path}: ")
    elif kind in CLIPS:
        found = _clip(path)
    elif kind in ARRAYS:
        try:
            found = opened("", arrays.load(path, str(path)))
        except UserError as error:
            raise UserError(f"{path}: not a readable array ({error})") from error
    elif kind in TEXTS:
        try:
            found = Opened("text", {"characters": len(path.read_text(encoding="utf-8"))})
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable text ({error})") from error
    else:
        found = Opened(notes=[f"not opened (.{kind})" if kind else "not opened"])
    found.measures = size | found.measures
    return found


def _bytes(name: str, raw: bytes) -> Opened:
    kind = next((e for head, e in HEADS.items() if raw.startswith(head)), "")
    called = CALLED.get(name.lower(), "")
    if kind in PICTURES or called == "pictures":
        try:
            return _picture(picture(raw))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{len(raw)} bytes that are no whole picture ({error})") from error
    if kind in SOUNDS or called == "sounds" or name.lower() in MEDIA["sounds"]:
        return _sound(*read_sound(raw, whole=False))
    return Opened(measures={"kilobytes": len(raw) / 1000}, notes=["not opened (bytes)"])


def _picture(raw: Any) -> Opened:
    try:
        seen = open_picture(raw) if isinstance(raw, Path) else raw
        size = upright(seen)
        pages = pages_of(seen)
        pixels_of(seen, whole=False)
    except (OSError, SyntaxError, ValueError) as error:
        said = f"{raw} is no whole picture" if isinstance(raw, Path) else "a picture that is not whole"
        raise UserError(f"{said} ({error.__cause__ or error})") from error
    width, height = size
    notes = ["several pages, the first is read"] if pages > 1 else []
    return Opened("picture", {"width": width, "height": height}, notes, (width, height))


def _sound(array: np.ndarray, rate: float, what: str = "") -> Opened:
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    try:
        notes = heard(array, rate)
    except UserError as error:
        raise UserError(f"{what}{error}") from error
    return Opened("sound", {"seconds": len(array) / rate} if rate else {"values": len(array)}, notes)


def _clip(path: Path) -> Opened:
    try:
        import av
    except ImportError:
        return Opened(notes=["not opened (clips need PyAV)"])
    try:
        with av.open(str(path)) as container:
            frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    except Exception as error:  # PyAV raises an own tree of errors, and IndexError where there is no film
        raise UserError(f"{path} is no whole clip ({error})") from error
    if not frames:
        raise UserError(f"{path}: a clip without a frame")
    return Opened("clip", {"frames": len(frames), "width": frames[0][0], "height": frames[0][1]})
