"""A folder of files: by class (CLASS/file), with captions (file and file.txt beside it), or just files.

photos/train/cat/1.jpg ...    photos/val/cat/9.jpg ...     splits as they lie there
photos/cat/1.jpg ...                                       split by a hash of each file's name
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.source import Record, Records
from data.splits import SPLITS, check_fractions, check_split, split_of

OTHER_NAMES = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
TEXTS = (".txt", ".caption")


@dataclass
class Folder:
    """path: the folder. name: the record's field that holds each file's path. endings: those that count, [] = all
    but texts and hidden files. labelled: the first folder below the split is the class.

    val, test, seed: the split where the folder has none of its own. A record is {"id", name: Path, "label", "class"},
    and "text" where a .txt of the same stem lies beside the file.
    """

    path: str
    name: str = "image"
    endings: list[str] = field(default_factory=list)
    labelled: bool = True
    val: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        self.path = str(self.path)
        check_fractions(self.val, self.test, f"folder {self.path}")

    def open(self, split: str) -> Records:
        root = Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder {self.path}")
        own = {OTHER_NAMES.get(p.name, p.name): p for p in sorted(root.iterdir()) if p.is_dir()}
        given = {name: p for name, p in own.items() if name in SPLITS}
        check_split(split, given if "train" in given else SPLITS, f"folder {self.path}")
        if "train" in given:
            chosen = given[split]
            files = self._files(chosen)
            classes = self._classes([f for base in given.values() for f in self._files(base)])
        else:
            chosen = root
            every = self._files(root)
            classes = self._classes(every)
            files = [f for f in every if split_of(f.as_posix(), self.seed, self.val, self.test) == split]
        if not files:
            wanted = f" ending in {', '.join(self.endings)}" if self.endings else ""
            raise UserError(f"folder {chosen}: no files{wanted} for split {split!r}")
        info: dict[str, Any] = {"about": f"files of {root.name}", "synthetic": False}
        if classes:
            info["classes"] = classes
        return Records(Files(chosen, files, self.name, classes), info)

    def _files(self, base: Path) -> list[Path]:
        """Files below `base`, as paths relative to it, in order."""
        wanted = tuple("." + e.lower().lstrip(".") for e in self.endings)
        found = []
        for folder, below, names in os.walk(base, followlinks=True):
            below[:] = sorted(d for d in below if not d.startswith("."))
            for name in names:
                lower = name.lower()
                if not name.startswith(".") and (lower.endswith(wanted) if wanted else not lower.endswith(TEXTS)):
                    found.append(Path(folder, name).relative_to(base))
        return sorted(found)

    def _classes(self, files: list[Path]) -> list[str]:
        return sorted({f.parts[0] for f in files if len(f.parts) > 1}) if self.labelled else []


class Files(Sequence[Record]):
    """Files as records, opened by whoever reads them."""

    def __init__(self, base: Path, files: list[Path], name: str, classes: list[str]) -> None:
        self.base, self.files, self.name = base, files, name
        self.number = {c: i for i, c in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        file = self.files[index]
        path = self.base / file
        record: Record = {"id": file.as_posix(), self.name: path}
        if self.number:
            if len(file.parts) < 2:
                raise UserError(f"{path} lies in no class folder; move it into one or give labelled=false")
            record |= {"label": self.number[file.parts[0]], "class": file.parts[0]}
        for ending in TEXTS:
            beside = path.with_suffix(ending)
            if beside.is_file():
                record["text"] = beside.read_text(encoding="utf-8").strip()
                break
        return record
