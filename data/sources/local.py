"""Records from arrays and tables in local files, described by fields: npz, parquet, csv and jsonl.

    Arrays("set/data.npz", {"image": "x_{split}", "label": "y_{split}"}, classes="class_names")
    Arrays("set/{split}.parquet", {"image": "picture:image_png", "text": "sentence"}, classes=["no", "yes"])
    Arrays("set/g.npz", {"graph": {"nodes": "label@offsets", "edges": "edge_index@edge_offsets"}}, fold="fold")
    Arrays("set/rows.csv", {"row": "*", "target": "price"}, drop=["price"], shares=[0.8, 0.1])

A field says where its value is: a column (or array), "column@offsets" for a slice of a ragged array,
"picture:column" for an encoded picture, "sound:column" and "file:column" for a sound or a path beside the file,
"=value" for a constant, "*" for the whole row. A dict of them makes a dict.
{split} stands for the split's own name in the file.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.files.paths import beside
from generalist.data.media import arrays
from generalist.data.media.pictures import open_picture
from generalist.data.media.sounds import read_sound
from generalist.data.stream.source import Records
from generalist.data.tables.columns import typed
from generalist.data.tables.readers import SHEETS, WRITTEN, read_raw
from generalist.data.tables.table_limits import check_parquet

SPLITS = ("train", "val", "test")


@lru_cache(maxsize=64)
def load_columns(path: str) -> dict[str, Any]:
    """{column or array name: values} of a file; opened once. UserError: absent, broken, of an unknown kind."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no data file {path}; check the path")
    try:
        if file.suffix == ".npz":
            return arrays.load_archive(file, path, limit="table_mb")
        import pandas

        if file.suffix == ".parquet":
            check_parquet(file)
            frame = pandas.read_parquet(file)
        elif file.name.lower().endswith((*WRITTEN, *SHEETS, ".jsonl", ".jsonl.gz")):
            frame = typed([read_raw(file)])[0][0].to_pandas()
        else:
            raise UserError(f"{path}: unknown kind of file; use .npz, .parquet, .csv, .csv.gz, .tsv, .xlsx or .jsonl")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); is it complete?") from error
    return {str(name): frame[name].to_numpy() for name in frame.columns}


@dataclass
class Arrays:
    """See the module. path: of the file, may hold {split}.

    names: what a split is called in the file or path. Where "val" has the name of "train", `holdout` of the training
    rows is set aside for it: whole groups of equal `group` column ("column-": of what stands before its last dash).
    rows: {split: [from, to]} by row number.
    fold: a column of fold numbers: `test_fold` is the test split, `val_fold` the validation split (-1 = holdout).
    shares: [train, val], the rest is test, drawn with `seed`. explode: columns of lists, one record an item.
    classes: names, or the array of them, or the column whose values in training they are. transpose: fields of
    arrays [channels, t] wanted as [t, channels]. drop: columns that "*" leaves out. about: one line for reports.
    limit: at most this many records a split, evenly spread (0 = all).
    """

    path: str
    fields: dict[str, Any]
    names: dict[str, str] = field(default_factory=lambda: {"train": "train", "val": "train", "test": "test"})
    holdout: float = 0.1
    group: str = ""
    rows: dict[str, list[int]] = field(default_factory=dict)
    fold: str = ""
    test_fold: int = 0
    val_fold: int = -1
    shares: list[float] = field(default_factory=list)
    explode: list[str] = field(default_factory=list)
    classes: Any = None
    transpose: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    about: str = ""
    seed: int = 0
    limit: int = 0

    def open(self, split: str) -> Records:
        """UserError: no such split, file, column; a split without records."""
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; {nearest(split, SPLITS)}")
        name = self.names.get(split, split)
        columns = load_columns(self.path.replace("{split}", name))
        first = _first(self.fields).replace("{split}", name)
        total = (
            len(_column(columns, first.partition("@")[2], self.path)) - 1 if "@" in first else _length(columns, first)
        )
        chosen = self._rows(split, columns, total, name)
        if len(chosen) == 0:
            raise UserError(f"{self.path}: the split {split!r} has no record; check names, rows, fold or shares")
        if self.limit and len(chosen) > self.limit:
            chosen = chosen[np.linspace(0, len(chosen) - 1, self.limit).astype(int)]
        found = Rows(self, columns, chosen, name)
        info: dict[str, Any] = {"synthetic": False, "about": self.about or Path(self.path).parent.name}
        if self.classes is not None:
            info["classes"] = self._classes()
        return Records(found, info)

    def _rows(self, split: str, columns: dict[str, Any], total: int, name: str) -> np.ndarray:
        """Row numbers of a split, by whichever rule is set."""
        if self.rows:
            rows = self.rows.get(split, self.rows["train"] if split == "val" else [0, 0])
            return (
                self._hold(split, np.arange(*rows), columns)
                if split not in self.rows or split == "train"
                else np.arange(*rows)
            )
        if self.fold:
            folds = np.asarray(_column(columns, self.fold, self.path))
            if split == "test":
                return np.flatnonzero(folds == self.test_fold)
            if self.val_fold >= 0:
                val = folds == self.val_fold
                return np.flatnonzero(val if split == "val" else (folds != self.test_fold) & ~val)
            return self._hold(split, np.flatnonzero(folds != self.test_fold), columns)
        if self.shares:
            order = np.random.default_rng(self.seed).permutation(total)
            cuts = [round(total * s) for s in np.cumsum(self.shares)]
            return np.sort(np.split(order, cuts)[SPLITS.index(split)])
        if split == "test" or self.names.get("val") != self.names.get("train"):
            return np.arange(total)
        return self._hold(split, np.arange(total), columns)

    def _hold(self, split: str, rows: np.ndarray, columns: dict[str, Any]) -> np.ndarray:
        """Training rows without those held out, or only those; nothing is held out where `rows` names "val"."""
        if split == "train" and "val" in self.rows:
            return rows
        values = rows
        if self.group:
            values = np.asarray(_column(columns, self.group.rstrip("-"), self.path))[rows]
            if self.group.endswith("-"):
                values = np.array([str(v).rpartition("-")[0] for v in values])
        kinds = np.unique(values)
        held = np.random.default_rng(self.seed).permutation(kinds)[: max(1, round(len(kinds) * self.holdout))]
        inside = np.isin(values, held)
        return rows[inside] if split == "val" else rows[~inside]

    def _classes(self) -> list[str]:
        if isinstance(self.classes, list):
            return [str(c) for c in self.classes]
        name = self.names.get("train", "train")
        columns = load_columns(self.path.replace("{split}", name))
        values = np.asarray(_column(columns, str(self.classes).replace("{split}", name), self.path))
        if values.dtype == object and len(values) and isinstance(values[0], list | np.ndarray):
            values = np.array([v for row in values for v in row])
        in_order = values.ndim == 1 and len(np.unique(values)) == len(
            values
        )  # an array of names, numbered as they stand
        return [str(v) for v in (values if in_order else np.unique(values))]


class Rows(Sequence):
    """Lazy records of chosen rows; exploded columns make several of one."""

    def __init__(self, source: Arrays, columns: dict[str, Any], chosen: np.ndarray, name: str) -> None:
        self.source, self.columns, self.name = source, columns, name
        self.items: list[tuple[int, int]] = [(int(i), -1) for i in chosen]
        # those that somebody holds: records that were exploded from one row share its picture, decoded once
        self.pictures: WeakValueDictionary[tuple[str, int], Any] = WeakValueDictionary()
        if source.explode:
            lists = _column(columns, source.explode[0], source.path)
            self.items = [(int(i), k) for i in chosen for k in range(len(lists[int(i)]))]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "pictures"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, pictures=WeakValueDictionary())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        row, item = self.items[index]
        record = {key: self._value(key, how, row, item) for key, how in self.source.fields.items()}
        record.setdefault(
            "id", f"{Path(self.source.path).parent.name}/{self.name}/{row}" + (f".{item}" if item >= 0 else "")
        )
        return record

    def _value(self, key: str, how: Any, row: int, item: int) -> Any:
        if isinstance(how, dict):
            return {k: self._value(k, v, row, item) for k, v in how.items()}
        how = how.replace("{split}", self.name)
        if how.startswith("="):
            return how[1:]
        if how == "*":
            return {c: _plain(v[row]) for c, v in self.columns.items() if c not in self.source.drop}
        kind, sign, column = how.partition(":")
        column = column if sign else how
        column, _, offsets = column.partition("@")
        values = _column(self.columns, column, self.source.path)
        if offsets:
            value = _slice(values, _column(self.columns, offsets, self.source.path), row)
        else:
            value = values if np.ndim(values) == 0 else values[row]
        if item >= 0 and column in self.source.explode:
            value = value[item]
        if sign and kind == "picture":
            place = (how, row)
            if (found := self.pictures.get(place)) is None:
                found = self.pictures[place] = _picture(value, how)
            return found
        if sign and kind == "sound":
            return _sound(Path(self.source.path).parent / str(value))
        if sign and kind == "file":
            return beside(Path(self.source.path).parent, str(value))
        if key in self.source.transpose:
            value = np.asarray(value).T
        return _plain(value)


def _slice(values: np.ndarray, offsets: np.ndarray, row: int) -> np.ndarray:
    """Row of a ragged array; the axis that is cut is the one as long as the last offset says."""
    part = slice(int(offsets[row]), int(offsets[row + 1]))
    return values[part] if len(values) == int(offsets[-1]) else values[..., part]


def _picture(value: Any, how: str) -> Any:
    if not isinstance(value, bytes):
        raise UserError(f"field {how!r} holds {type(value).__name__}, not the bytes of a picture")
    try:
        return open_picture(io.BytesIO(value))
    except Exception as error:
        raise UserError(f"field {how!r}: not a picture ({error})") from error


def _sound(path: Path) -> dict[str, Any]:
    array, rate = read_sound(path)
    return {"array": array, "sampling_rate": rate}


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's, missing cells as None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def _first(fields: dict[str, Any]) -> str:
    """The first field that names a column: it says how many records there are."""
    for how in fields.values():
        name = _first(how) if isinstance(how, dict) else how
        if name and name != "*" and not name.startswith("="):
            return name
    return ""


def _length(columns: dict[str, Any], how: str) -> int:
    name = how.partition(":")[2] or how
    return len(_column(columns, name, "") if name else next(iter(columns.values())))


def _column(columns: dict[str, Any], name: str, path: str) -> Any:
    if name not in columns:
        raise UserError(f"{path}: no column or array {name!r}; {nearest(name, columns)}")
    return columns[name]
