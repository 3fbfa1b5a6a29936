"""Tables: CSV in any dialect, JSON lines, Parquet, Arrow files, and data frames of pandas or polars in memory.

A record is {"id", every column, "row": the columns that describe it}: `inputs={"table": "row"}` takes the whole row,
`inputs={"text": "title"}` one column. Columns of pictures as Parquet holds them ({"bytes", "path"}) become pictures,
names of pictures, sounds and clips paths, relative to the file that names them; neither is part of the row.
What was odd in the file, and what was made of it, stands in the records' info["notes"].
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.foreign import acts_as
from generalist.data.base.labels import Labels, is_empty, name_of, ordered
from generalist.data.stream.source import Records
from generalist.data.stream.splits import SPLITS, check_fractions, check_split, divide, in_time
from generalist.data.tables.columns import typed
from generalist.data.tables.dates import moment, style_of
from generalist.data.tables.identity import is_key, names_rows
from generalist.data.tables.media_columns import categories, class_column, class_names, file_columns, media_columns
from generalist.data.tables.readers import ENDINGS, Raw, headed, read_raw
from generalist.data.tables.rows import Named, TableRows, value

__all__ = ["ENDINGS", "TableRows", "Tabular", "from_frame", "read_table", "value"]
REPEATS = 0.2  # of a table's rows: what is equal so often repeats by nature and is not kept together


def read_table(path: str | Path) -> Any:
    """A file -> pyarrow Table. UserError when it cannot be read."""
    return typed([read_raw(path)], "")[0][0]


@dataclass
class Tabular:
    """path: one file, split as below; or splits: {split: file}. A column that the training file lacks is left out of
    the others' rows. holdout: with files for train and test alone, this share of the training rows is val.

    label: the column with the answer (default: the one that the file's schema says is of classes). Words are classes
    (in the schema's order, in alphabetic order, or as `classes` says) and become indices; numbers stay numbers, lists
    stay lists. id: the column that names a row (default: its number). drop: columns left
    out of "row"; a column that only names rows is left out too, unless it is in `keep`. frame: a pandas or polars data
    frame instead of a file; such a source cannot be saved with a recipe.

    val, test, seed: of the split of one file. Equal rows come into one split, and so do rows with the same `group`;
    `time` names a column by which the newest rows are the test.
    absent: a cell that names a file which is not there is a missing value. need: columns besides the label without
    which a row is of no use; every split is given rows that have them.
    """

    path: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    label: str = ""
    id: str = ""
    drop: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    val: float = 0.1
    test: float = 0.2
    seed: int = 0
    group: str = ""
    time: str = ""
    holdout: float = 0.0
    absent: bool = False
    need: list[str] = field(default_factory=list)
    frame: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.path = str(self.path)
        given = sum([bool(self.path), bool(self.splits), self.frame is not None])
        if given != 1:
            raise UserError("table: give one of path=FILE, splits={'train': FILE, ...} or frame=DATAFRAME")
        if self.group and self.time:
            raise UserError("table: give group=COLUMN or time=COLUMN, not both")
        check_fractions(self.val, self.test, f"table {self.path}")
        check_fractions(self.holdout, 0.0, f"table {self.path}")

    @property
    def what(self) -> str:
        return f"table {self.path or 'splits' if self.frame is None else 'frame'}"

    def carried(self) -> list[str]:
        return self.drop

    def answered_in(self) -> str:
        return self.label

    def unanswered(self, data: Any) -> Records:
        """Every row of a file or frame in order, whatever the splits are here."""
        if isinstance(data, str | Path):
            if not Path(data).is_file() or not str(data).lower().endswith(ENDINGS):
                raise UserError(f"{data}: give a table's file ({', '.join(ENDINGS[:5])} ...)")
            given: dict[str, Any] = {"path": str(data)}
        else:
            given = {"frame": data}
        return Tabular(**given, absent=self.absent, val=0.0, test=0.0).open("train")

    def open(self, split: str) -> Records:
        cut = self.holdout > 0 and "val" not in self.splits
        check_split(split, [*self.splits, *(["val"] if cut else [])] if self.splits else SPLITS, self.what)
        asked, split = split, "train" if cut and split == "val" else split  # the file that holds it
        files = list(self.splits) if self.splits else [""]
        raws = [Raw(from_frame(self.frame))] if self.frame is not None else []
        tables, notes = typed(raws or [read_raw(self.splits.get(s, self.path)) for s in files], self.label)
        label = self.label or class_column(tables[0])
        table = tables[files.index(split) if self.splits else 0]
        first = tables[files.index("train") if "train" in files else 0]
        for column in [c for c in (self.label, self.id, self.group, self.time, *self.drop, *self.keep) if c]:
            if column not in table.column_names:
                raise UserError(f"{self.what}: no column {column!r}; {nearest(column, table.column_names)}")
        left_out = {self.label or (label if label == "label" else ""), self.id, *self.drop} - {""}
        naming = self._naming(first, left_out)
        if fresh := [c for c in table.column_names if c not in first.column_names]:
            notes.append(f"{', '.join(fresh)}: only in the {split} file, left out of row")
            left_out |= set(fresh)
        if naming:
            left = f"another value in every row, left out of row (keep={naming} takes it in)"
            notes.append(f"{', '.join(naming)}: {left}")
        names = [str(v) for v in table[self.id].to_pylist()] if self.id else [str(i) for i in range(len(table))]
        # its names are kept, though rows are split by their number
        own_id = "id" in naming and "id" in table.column_names and not self.id
        place = Path(self.splits.get(split, self.path) if self.frame is None else ".").parent
        named = Named(place, frozenset(file_columns(table, place)), self.absent)
        answers, classes, told = self._answers(table, tables, label)
        if not self.splits or (cut and split == "train"):
            import pyarrow as pa

            apart = {self.id, *(c for c in naming if is_key(c, table[c].to_pylist()))}
            own, how = self._split(table, names, answers, apart, named)
            chosen = [i for i, s in enumerate(own) if s == asked]
            table, names = table.take(pa.array(chosen, pa.int64())), [names[i] for i in chosen]
            answers = None if answers is None else [answers[i] for i in chosen]
            notes += how
        if own_id:
            names = [name if v is None else str(v) for name, v in zip(names, table["id"].to_pylist(), strict=True)]
        info: dict[str, Any] = {"about": f"rows of {Path(self.path).name or 'a table'}", "synthetic": False}
        info |= {"classes": classes} if classes else {}
        info |= {"answer": label, "naming": naming}
        info |= {"notes": [*notes, *told]} if notes or told else {}
        return Records(TableRows(table, names, answers, left_out | set(naming) | media_columns(table), named), info)

    def _naming(self, table: Any, left_out: set[str]) -> list[str]:
        """Columns that only name the rows; none where nothing else would be left."""
        asked = [c for c in table.column_names if c not in left_out]
        found = []
        for name in asked:
            if name in self.keep or name in (self.group, self.time):
                continue
            values = table[name].to_pylist() if _is_plain(table[name].type) else []
            if names_rows(name, values) and style_of(values) is None:
                found.append(name)
        return found if len(found) < len(asked) else []

    def _answers(self, table: Any, tables: list[Any], label: str) -> tuple[list[Any] | None, list[str], list[str]]:
        """The label of every row as records have it, the classes and notes; the classes of all files together."""
        if not label:
            return None, [], []
        named = next((n for t in tables if (n := class_names(t, label)) is not None), None)
        if named is not None:
            numbers = table[label].to_pylist()
            if odd := [v for v in numbers if v is not None and v >= len(named)]:
                raise UserError(f"{self.what}: label {odd[0]} is none of the {len(named)} classes of its schema")
            chosen = Labels(list(self.classes or named))
            places = [chosen.place(name) if self.classes else i for i, name in enumerate(named)]
            return [None if v is None or v < 0 else places[v] for v in numbers], list(self.classes or named), []
        every = [v for t in tables if label in t.column_names for v in t[label].to_pylist()]
        own = [None if is_empty(v) else v for v in table[label].to_pylist()]
        present = [v for v in every if not is_empty(v)]
        if any(isinstance(v, list) for v in present):
            items = {name_of(item) for v in present for item in v if not is_empty(item)}
            return own, list(self.classes or ordered(items)), []
        if not self.classes and not all(isinstance(v, str | bool) for v in present):
            return own, [], []
        classes = list(self.classes or categories(table, label) or ordered({name_of(v) for v in present}))
        if not classes:
            return own, [], []
        labels = Labels(classes)
        kinds = {v: labels.place(v) for v in dict.fromkeys(v for v in own if v is not None)}
        note = [f"{label}: {labels.note}"] if any(not isinstance(v, str) for v in kinds) and labels.note else []
        return [None if v is None else kinds[v] for v in own], classes, note

    def _split(
        self, table: Any, names: list[str], answers: list[Any] | None, apart: set[str], named: Named
    ) -> tuple[list[str], list[str]]:
        """The split of every row, and how it was made where that needs telling."""
        val, test = (self.holdout, 0.0) if self.splits else (self.val, self.test)
        if self.time:
            return in_time(moments(table[self.time].to_pylist(), self.time), val, test), []
        notes = []
        keys = list(names)
        if self.group:
            groups = table[self.group].to_pylist()
            keys = [names[i] if v is None else f"{self.group}={v}" for i, v in enumerate(groups)]
        else:
            first = first_equal(table.select([c for c in table.column_names if c not in apart]))
            again = sum(i != f for i, f in enumerate(first))
            if again:
                most = Counter(first).most_common(1)[0][1]
                if most > max(2, REPEATS * len(first)) or len(set(first)) < 3:
                    notes = [f"rows equal to others: {again}; they repeat by nature and are split one by one"]
                else:
                    keys = [names[f] for f in first]
                    notes = [f"rows equal to others: {again}; equal rows are in one split"]
        needed = [[named.of(c, cell) for cell in table[c].to_pylist()] for c in self.need]
        needed += [] if answers is None else [answers]
        asked = [all(v is not None for v in row) for row in zip(*needed, strict=True)] if needed else None
        try:
            return divide(keys, self.seed, val, test, asked), notes
        except UserError as error:
            raise UserError(f"{self.what}: {error}") from error


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def first_equal(table: Any) -> list[int]:
    """The number of the first row that is equal to each."""
    import pandas

    if not table.num_columns:
        return list(range(len(table)))
    parts = []
    for column in table.columns:
        values = column.to_pylist()
        flat = pandas.Series([v if isinstance(v, str | bytes) else repr(v) for v in values], dtype=object)
        parts.append(pandas.util.hash_array(flat.to_numpy(), categorize=False).astype(np.uint64))
    mixed = np.zeros(len(table), dtype=np.uint64)
    for part in parts:
        mixed = mixed * np.uint64(1_000_003) ^ part
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    return first[inverse].tolist()


def moments(values: list[Any], name: str) -> list[float]:
    """A column of dates or numbers as numbers that grow with time. UserError for one that is neither."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) and v == v for v in values):
        return [float(v) for v in values]
    style = style_of([v for v in values if v is not None])
    found = [None if v is None or style is None else moment(v, style[0]) for v in values]
    if bad := [v for v, when in zip(values, found, strict=True) if when is None]:
        raise UserError(f"column {name!r} is no time: {bad[0]!r}")
    return [when.timestamp() for when in found if when is not None]


def from_frame(frame: Any) -> Any:
    """pandas, polars, pyarrow, or rows as dictionaries -> pyarrow Table."""
    import pyarrow as pa

    if isinstance(frame, list) and frame and all(isinstance(row, dict) for row in frame):
        import pandas

        frame = pandas.DataFrame(frame)
    if isinstance(frame, pa.Table):
        return frame
    if acts_as(frame, "to_arrow"):
        return frame.to_arrow()
    if acts_as(frame, "columns", "iloc"):
        names, _ = headed([str(c) for c in frame.columns])
        return pa.Table.from_pandas(frame.set_axis(names, axis=1), preserve_index=False)
    raise UserError(
        f"table: a {type(frame).__name__} is no table; give pandas, polars, pyarrow or a list of dictionaries"
    )
