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
from generalist.data.sources.annotations.annotated import Pictures, id_key, size_of
from generalist.data.sources.annotations.masks import check_object
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


def _record(row: dict[str, Any], masks: bool) -> Record:
    found = row.pop("found")
    return {
        **row,
        "boxes": np.array([f[0] for f in found], dtype=np.float64).reshape(-1, 4),
        "classes": np.array([f[1] for f in found], dtype=np.int64),
        "crowd": np.array([f[2] for f in found], dtype=bool),
        "segments": [f[3].get("segmentation") for f in found] if masks else None,
    }
