"""A folder of files: by class (CLASS/file), with captions (file and file.txt beside it), or just files.

photos/train/cat/1.jpg ...    photos/Validation/cat/9.jpg ...    splits as they lie there, in any usual spelling
photos/cat/1.jpg ...                                             split by a hash of each file's name
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import normalize

from generalist.data.base.errors import Unfinished, UserError
from generalist.data.base.files import walk
from generalist.data.media.kinds import counted_out, ending, is_junk, samples_among
from generalist.data.stream.source import Record, Records
from generalist.data.stream.splits import SPLITS, check_fractions, check_split, named_split, split_of

TEXTS = (".txt", ".caption")


@dataclass
class Folder:
    """path: the folder. name: the record's field that holds each file's path. endings: those that count, [] = those of
    one kind, pictures, sounds or clips (`generalist.data.media.kinds`). labelled: the first folder below the split is
    the class.

    val, test, seed: the split where the folder has none of its own. holdout: where it has its own but none for val,
    this share of the training files is val. A record is {"id", name: Path, "label", "class"}, and "text" where a .txt
    of the same stem lies beside the file. info["notes"]: what was left out, in lines.
    """

    path: str
    name: str = "image"
    endings: list[str] = field(default_factory=list)
    labelled: bool = True
    val: float = 0.1
    test: float = 0.2
    seed: int = 0
    holdout: float = 0.0

    def __post_init__(self) -> None:
        self.path = str(self.path)
        check_fractions(self.val, self.test, f"folder {self.path}")
        check_fractions(self.holdout, 0.0, f"folder {self.path}")

    def carried(self) -> list[str]:
        return []

    def answered_in(self) -> str:
        return ""

    def unanswered(self, data: Any) -> Records:
        """Every file of a folder, in classes or not, or of a list of paths."""
        if not isinstance(data, str | Path):
            return Records([{"id": str(f), self.name: f} for f in data])
        root = Path(data)
        if not root.is_dir():
            raise UserError(f"{data} is no folder; give one of files such as those that were learnt")
        listed = walked(root, [])
        wanted, _ = samples_among(listed, self.name)
        files = [root / f for f in listed if ending(f) in wanted and not is_junk(f)]
        return Records([{"id": f.relative_to(root).as_posix(), self.name: f} for f in files])

    def open(self, split: str) -> Records:
        root = Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder {self.path}")
        refuse_others(root)
        root, given = self._splits(root)
        cut = bool(given) and self.holdout > 0 and "val" not in given
        check_split(split, [*given, *(["val"] if cut else [])] or SPLITS, f"folder {self.path}")
        skipped: list[str] = []
        every = {name: walked(base, skipped) for name, base in (given or {"": root}).items()}
        try:
            wanted, word = self._wanted([file for files in every.values() for file in files])
        except UserError as error:
            raise UserError(f"folder {self.path}: {error}") from error
        samples = {name: [f for f in files if self._counts(f, wanted)] for name, files in every.items()}
        classes = self._classes([f for files in samples.values() for f in files])
        base = "train" if cut and split == "val" else split
        if cut and base == "train":
            files = self._split(samples[base], split, self.holdout, 0.0)
        else:
            files = samples[split] if given else self._split(samples[""], split, self.val, self.test)
        chosen = given.get(base, root)
        if not files:
            ends = f" ending in {', '.join(self.endings)}" if self.endings else ""
            raise UserError(f"folder {chosen}: no {word}{ends} for split {split!r}")
        info: dict[str, Any] = {"about": f"files of {root.name}", "synthetic": False}
        of = base if given else ""
        taken = set(samples[of])  # also those of them that another split holds
        texts = {t for f in taken for t in (f.with_suffix(e) for e in TEXTS)}
        if note := counted_out([f for f in every[of] if f not in taken and f not in texts]):
            info["notes"] = [note]
        if skipped:
            info["notes"] = [*info.get("notes", []), f"no ordinary files, left out: {', '.join(skipped[:8])}"]
        if classes:
            info["classes"] = classes
        return Records(Files(chosen, files, self.name, classes), info)

    def given(self) -> dict[str, Path]:
        """The folders of the splits, {} where the folder has none of its own and names are hashed."""
        return self._splits(Path(self.path))[1]

    def _splits(self, root: Path) -> tuple[Path, dict[str, Path]]:
        """The folder that holds the splits or the classes, and {split: its folder}, empty where there are none.

        A folder "Train" beside others that are no splits (Bus, Car) is a class. A single folder within the folder that
        holds the splits, as archives leave it, is entered.
        """
        below = [p for p in sorted(root.iterdir()) if p.is_dir() and not is_junk(Path(p.name))]
        named = [(split, p) for p in below if (split := named_split(p.name))]
        given = dict(named)
        for split, path in named:
            if given[split] != path:
                raise UserError(f"folder {self.path}: {path.name} and {given[split].name} are both {split}; merge them")
        if "train" in given and (len(given) > 1 or len(below) == 1):
            return root, given
        if len(below) == 1 and not any(p.is_file() and not is_junk(Path(p.name)) for p in root.iterdir()):
            inner = self._splits(below[0])
            if inner[1]:
                return inner
        return root, {}

    def _wanted(self, files: list[Path]) -> tuple[set[str], str]:
        """The endings that count and the word for such files."""
        if self.endings:
            return {e.lower().lstrip(".") for e in self.endings}, "files"
        return samples_among(files, self.name)

    def _counts(self, file: Path, wanted: set[str]) -> bool:
        if is_junk(file):
            return False
        return ending(file) in wanted or file.name.lower().endswith(tuple(f".{e}" for e in wanted if "." in e))

    def _split(self, files: list[Path], split: str, val: float, test: float) -> list[Path]:
        return [f for f in files if split_of(composed(f.as_posix()), self.seed, val, test) == split]

    def _classes(self, files: list[Path]) -> list[str]:
        return sorted({composed(f.parts[0]) for f in files if len(f.parts) > 1}) if self.labelled else []


def composed(name: str) -> str:
    """A name as people write it: macOS keeps letters and their accents apart, and the two look the same."""
    return normalize("NFC", name)


def walked(base: Path, skipped: list[str]) -> list[Path]:
    """All ordinary files below `base`, as paths relative to it, in order. skipped: takes the paths of the others."""
    return sorted(Path(folder, name).relative_to(base) for folder, _, names in walk(base, skipped) for name in names)


def refuse_others(root: Path) -> None:
    """UserError for folders of another layout, whose files are no samples by themselves."""
    if (root / "meta" / "info.json").is_file() and (root / "data").is_dir():
        table = next((p for p in sorted((root / "data").rglob("*.parquet"))), root / "data")
        raise UserError(
            f"folder {root} is a LeRobot set (meta/info.json, data/*.parquet): its episodes are rows of Parquet "
            f"tables, not files by class; give a table of it, {table}"
        )
    for plan in sorted(root.glob("*/plan.json")):
        refuse_unfinished(plan.parent)


def refuse_unfinished(folder: Path) -> None:
    """Unfinished where `generalist data shard` was interrupted in this folder of a split."""
    if (folder / "plan.json").is_file() and not (folder / "index.json").is_file():
        raise Unfinished(
            f"folder {folder}: shards whose writing was interrupted; run the same generalist data shard again, it goes "
            "on with those that are missing"
        )


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
        record: Record = {"id": composed(file.as_posix()), self.name: path}
        if self.number:
            if len(file.parts) < 2:
                raise UserError(f"{path} lies in no class folder; move it into one or give labelled=false")
            name = composed(file.parts[0])
            record |= {"label": self.number[name], "class": name}
        for text in TEXTS:
            beside = path.with_suffix(text)
            if beside.is_file():
                record["text"] = beside.read_text(encoding="utf-8").strip()
                break
        return record
