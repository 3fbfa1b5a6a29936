"""COCO-format annotations as records: pictures with boxes, masks and class names.

    {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "category_id", "bbox",
     "segmentation", "iscrowd"}], "categories": [{"id", "name"}]}

Boxes are (left, top, width, height) in pixels there and (left, top, right, bottom) in a record. What is broken is named
by file and annotation before training starts, not in the middle of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.media import jsons
from generalist.data.sources.annotated import Pictures, corners_for_size, id_key, size_of
from generalist.data.stream.source import Record, Records

# where people keep a split's annotation file: this project's, COCO's own, Roboflow's, and plain ones
LAYOUTS = (
    "instances_{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}2017.json",
    "annotations/instances_{split}2014.json",
    "{split}/_annotations.coco.json",
    "{split}/annotations.json",
    "annotations/{split}.json",
    "{split}.json",
)
OTHER_NAMES = {"val": ("valid", "validation"), "train": ("training",), "test": ("testing",)}


@dataclass
class CocoObjects:
    """`folder`/instances_{split}.json and its pictures; a "test" split that is not there is read from `test_from`.

    pattern: the annotation file of a split; where the usual one is not there, those of `LAYOUTS` are tried.
    masks: polygons and RLE are wanted. strict: a broken box or mask is an
    error; False leaves it out and counts it in info["left_out"]. classes: the names in order; default those of the
    training file, whatever order another split's file has.
    """

    folder: str
    pattern: str = "instances_{split}.json"
    images: str = ""
    masks: bool = False
    strict: bool = True
    test_from: str = "val"
    classes: list[str] = field(default_factory=list)

    def open(self, split: str) -> Records:
        path = self.file(split)
        if not path.is_file() and split == "test":
            path = self.file(self.test_from)
        first = self.file("train")
        classes = self.classes
        if not classes and path != first and first.is_file():
            classes = order_of(first, first.stat().st_mtime_ns)
        return read_coco(path, Path(self.folder) / self.images, self.masks, self.strict, classes)

    def file(self, split: str) -> Path:
        """A split's annotation file; where there is none, the one that `pattern` names."""
        named = Path(self.folder) / self.pattern.format(split=split)
        if named.is_file() or self.pattern != LAYOUTS[0]:
            return named
        names = (split, *OTHER_NAMES.get(split, ()))
        there = (Path(self.folder) / layout.format(split=name) for layout in LAYOUTS for name in names)
        return next((path for path in there if path.is_file()), named)


def folders_of(path: Path, pictures: Path) -> list[Path]:
    """Where an annotation file's pictures may lie: beside it, in images/, in a folder of the split's name."""
    split = path.stem.removeprefix("instances_")
    return [pictures, path.parent, *(pictures / name for name in ("images", split, f"images/{split}"))]


@lru_cache(maxsize=16)
def order_of(path: Path, changed: int) -> list[str]:
    """The names of a file's categories in its order. changed: when the file was written, so that a new one is read."""
    return used_categories(load_tree(path), path, ())[0]


def load_tree(path: Path) -> dict[str, Any]:
    """The file as it is. UserError for what is no annotation file."""
    try:
        loaded = jsons.loads(path.read_text(encoding="utf-8"), "it")
    except OSError as error:
        raise UserError(f"cannot read annotations {path} ({error.strerror}); check the folder and the split") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); is the download complete?") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(loaded, dict) or not isinstance(loaded.get(key), list):
            raise UserError(f"{path} has no list {key!r}; it is not in COCO's instances format")
    return loaded


def read_coco(
    path: Path, pictures: Path, masks: bool = False, strict: bool = True, classes: Sequence[str] = ()
) -> Records:
    """One annotation file as records.

    A record: id, image (path), image_id, height, width, boxes Float64[n 4], classes Int[n], crowd Bool[n],
    segments (list of n polygons or RLE, or None). info: classes, category_ids, annotations (the file), left_out, notes,
    pixel_sizes (height and width are the picture's).
    """
    loaded = load_tree(path)
    names, number, notes = used_categories(loaded, path, classes)
    rows: dict[str, dict[str, Any]] = {}
    files = Pictures(*folders_of(path, pictures))
    for image in _objects(loaded["images"], path, "images"):
        row = _image(image, path, files)
        if id_key(image["id"]) in rows:
            raise UserError(f"{path.name}, image {row['id']}: the image id {image['id']} stands twice")
        rows[id_key(image["id"])] = row
    left_out, seen, twice = 0, set(), []
    for note in _objects(loaded["annotations"], path, "annotations"):
        where = f"{path.name}, annotation {note.get('id')} of image {note.get('image_id')}"
        if id_key(note.get("image_id")) not in rows:
            raise UserError(f"{where}: no such image in the file")
        row = rows[id_key(note["image_id"])]
        kind = id_key(note.get("category_id"))
        if kind not in number:
            raise UserError(f"{where}: no category {note.get('category_id')} in the file's categories")
        try:
            checked = check_object(note, row["height"], row["width"], masks)
        except UserError as error:
            if strict:
                raise UserError(f"{where}: {error}; mend it, or leave such objects out with strict=False") from error
            left_out += 1
            continue
        mark = (row["id"], kind, *checked.tolist())
        twice += [str(note.get("id"))] if mark in seen else []
        seen.add(mark)
        row["found"].append((checked, number[kind], bool(note.get("iscrowd", 0)), note))
    if twice:
        notes.append(f"objects that stand twice (the same picture, class and box): {len(twice)}, such as {twice[0]}")
    if left_out:
        notes.append(f"objects left out for a broken box or mask: {left_out}")
    info = {
        "classes": names,
        "category_ids": {number[id_key(c["id"])]: c["id"] for c in loaded["categories"] if id_key(c["id"]) in number},
        "about": f"{path.parent.name}/{path.name}",
        "annotations": str(path),
        "left_out": left_out,
        "pixel_sizes": True,
    }
    info |= {"notes": notes} if notes else {}
    return Records([_record(row, masks) for row in rows.values()], info)


def _image(image: dict[str, Any], path: Path, files: Pictures) -> dict[str, Any]:
    """An entry of the file's images as the beginning of a record; its size is the picture's where none is written."""
    where = f"{path.name}, image {image.get('file_name', image.get('id'))}"
    if not all(key in image for key in ("id", "file_name")):
        raise UserError(f"{where}: an image needs id, file_name, width and height")
    try:
        found = files.find(str(image["file_name"]))
        if image.get("width") is None and image.get("height") is None:
            image["width"], image["height"] = size_of(found)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    size = [image.get("width"), image.get("height")]
    whole = [int(v) for v in size if isinstance(v, int | float) and 1 <= v < 2**31 and v == int(v)]
    if len(whole) < 2:
        raise UserError(f"{where}: width {size[0]} and height {size[1]} must be whole pixels, at least 1")
    return {
        "id": str(image["file_name"]),
        "image": found,
        "image_id": image["id"],
        "height": whole[1],
        "width": whole[0],
        "found": [],
    }


def _objects(entries: list[Any], path: Path, key: str) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{path.name}: entry {number} of {key!r} is no object but {str(entry)[:40]!r}")
        yield entry


def used_categories(
    loaded: dict[str, Any], path: Path, classes: Sequence[str]
) -> tuple[list[str], dict[str, int], list[str]]:
    """As `categories`, without a group of categories that is no class itself, and what was left out.

    Roboflow writes its project's name as a category 0 of supercategory "none" that no object has.
    """
    asked = {id_key(n["category_id"]) for n in loaded["annotations"] if isinstance(n, dict) and "category_id" in n}
    found = list(_objects(loaded["categories"], path, "categories"))
    groups = [c for c in found if c.get("supercategory") == "none" and id_key(c.get("id")) not in asked]
    groups = [c for c in groups if id_key(c.get("id")) == "0" and len(found) > 1 and c.get("name") not in classes]
    kept = [c for c in found if c not in groups]
    notes = [
        f"category {c.get('name')!r} (id 0, supercategory none) has no object: a group and no class" for c in groups
    ]
    names, number = categories(kept, path, classes)
    return names, number, notes


def categories(found: list[dict[str, Any]], path: Path, classes: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Names in order and {key of a category's id: index}. With `classes` given, every name must be among them."""
    for entry in _objects(found, path, "categories"):
        if "id" not in entry or not str(entry.get("name", "")).strip():
            raise UserError(f"{path.name}: a category needs an id and a name, got {entry}")
    names = [str(entry["name"]) for entry in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or len({id_key(entry["id"]) for entry in found}) != len(found):
        raise UserError(f"{path.name}: categories stand twice {twice or ''}; every name and id must be there once")
    order = list(classes) or names
    missing = [n for n in names if n not in order]
    if missing:
        raise UserError(
            f"{path.name}: categories {missing[:5]} are not among the classes {order[:8]}; the files differ"
        )
    return order, {id_key(entry["id"]): order.index(str(entry["name"])) for entry in found}


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


def _record(row: dict[str, Any], masks: bool) -> Record:
    found = row.pop("found")
    return {
        **row,
        "boxes": np.array([f[0] for f in found], dtype=np.float64).reshape(-1, 4),
        "classes": np.array([f[1] for f in found], dtype=np.int64),
        "crowd": np.array([f[2] for f in found], dtype=bool),
        "segments": [f[3].get("segmentation") for f in found] if masks else None,
    }
