"""COCO-style captions as records: {"images": [{id, file_name}], "annotations": [{image_id, caption}]}."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.media import jsons
from generalist.data.sources.annotations.annotated import Pictures, id_key
from generalist.data.stream.source import Record, Records


@dataclass
class CocoCaptions:
    """`folder`/captions_{split}.json and its pictures; a "test" split that is not there is read from `test_from`.

    each: "picture" gives a record a picture, "caption" a record a caption (for training retrieval on all of them).
    A record: id, image (path), captions (all of the picture), caption (its own, or the first).
    """

    folder: str
    pattern: str = "captions_{split}.json"
    images: str = ""
    each: str = "picture"
    test_from: str = "val"

    def open(self, split: str) -> Records:
        if self.each not in ("picture", "caption"):
            raise UserError(f"each={self.each!r}; valid: picture, caption")
        path = Path(self.folder) / self.pattern.format(split=split)
        if not path.is_file() and split == "test":
            path = Path(self.folder) / self.pattern.format(split=self.test_from)
        rows = read_captions(path, Path(self.folder) / self.images)
        if self.each == "caption":
            rows = [
                row | {"id": f"{row['id']}-{i}", "caption": caption}
                for row in rows
                for i, caption in enumerate(row["captions"])
            ]
        return Records(rows, {"about": f"captions of {path.name}", "synthetic": False})


def read_captions(path: Path, pictures: Path) -> list[Record]:
    """One annotation file as a record a picture, pictures without a caption left out. UserError for a broken file."""
    try:
        loaded = jsons.loads(path.read_text(encoding="utf-8"), str(path))
        files = Pictures(pictures, path.parent, pictures / "images")
        rows: dict[str, dict[str, Any]] = {
            id_key(row["id"]): {"id": str(row["id"]), "image": files.find(str(row["file_name"])), "captions": []}
            for row in loaded["images"]
        }
        for note in loaded["annotations"]:
            if id_key(note["image_id"]) not in rows:
                raise UserError(f"{path}: a caption names the picture {note['image_id']}, which is not in its list")
            if str(note["caption"]).strip():
                rows[id_key(note["image_id"])]["captions"].append(str(note["caption"]).strip())
    except OSError as error:
        raise UserError(f"cannot read captions {path} ({error.strerror}); check the folder and the split") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a COCO captions file ({type(error).__name__}: {error})") from error
    found = [row | {"caption": row["captions"][0]} for row in rows.values() if row["captions"]]
    if not found:
        raise UserError(f"{path} holds no caption")
    return found
