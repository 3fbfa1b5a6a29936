"""What annotation tools write into COCO files in ways of their own: ids as texts, paths of other machines, no sizes.

Read is what has one meaning only; the rest is refused by whoever reads, naming the record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from generalist.data.base.errors import UserError
from generalist.data.files.paths import beside


def id_key(value: Any) -> str:
    """An id as a key that is the same for 3, 3.0 and "3"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return str(int(text)) if text.isdecimal() and text.isascii() else text


class Pictures:
    """Where the pictures of an annotation file are, however their names are written.

    folders: where to look, in order. As it stands, with Windows' separators, with %20 for a space, and by its last part
    where the rest is a path of the tool's own machine (/data/upload/1/a.jpg); two pictures never share a file.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = list(dict.fromkeys(folders))
        self.taken: dict[Path, str] = {}

    def find(self, name: str) -> Path:
        """The picture's file, which may not be there. UserError: another name of the file led to the same one."""
        written = name.partition("?d=")[2] or name
        last = written.replace("\\", "/").rpartition("/")[2]
        for one in dict.fromkeys((written, unquote(written), last, unquote(last))):
            for folder in self.folders:
                path = beside(folder, one.lstrip("/") if one == last else one)
                if path.is_file():
                    if self.taken.setdefault(path, name) != name:
                        raise UserError(f"{self.taken[path]!r} and {name!r} are both found only as {path}")
                    return path
        return self.folders[0] / name


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture's file as it is shown. UserError when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            turned = opened.getexif().get(0x0112, 1) >= 5
            return (opened.height, opened.width) if turned else (opened.width, opened.height)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"no width and height, and its picture {path} cannot be read ({error})") from error


def corners_for_size(note: dict[str, Any], box: Any) -> bool:
    """Whether the box (x, y, right, bottom) fits the annotation's own polygons or area, and (x, y, w, h) does not."""
    left, top, third, fourth = (float(v) for v in box)
    segments = note.get("segmentation")
    if isinstance(segments, list) and segments and all(isinstance(s, list) and len(s) >= 6 for s in segments):
        try:
            xs = [float(v) for s in segments for v in s[0::2]]
            ys = [float(v) for s in segments for v in s[1::2]]
        except (TypeError, ValueError):
            return False
        right, bottom = max(xs), max(ys)
        as_corners = third > left and fourth > top and abs(third - right) <= 2 and abs(fourth - bottom) <= 2
        return as_corners and (abs(left + third - right) > 2 or abs(top + fourth - bottom) > 2)
    area = note.get("area")
    if isinstance(area, int | float) and area > 0 and not isinstance(segments, dict):
        corners, size = (third - left) * (fourth - top), third * fourth
        return third > left and fourth > top and abs(corners - area) <= 0.01 * area < abs(size - area)
    return False
