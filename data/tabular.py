"""Tables: CSV, TSV, JSON lines, Parquet, Arrow files, and data frames of pandas or polars in memory.

A record is {"id", every column, "row": the columns without id, label and `drop`}: `inputs={"table": "row"}` takes
the whole row, `inputs={"text": "title"}` one column. Columns of pictures as Parquet holds them ({"bytes", "path"})
become pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.codec import picture
from data.errors import UserError, nearest
from data.source import Record, Records
from data.splits import SPLITS, check_fractions, check_split, places

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".arrow", ".feather", ".jsonl", ".jsonl.gz", ".json")


def read_table(path: str | Path) -> Any:
    """A file -> pyarrow Table. UserError when it cannot be read."""
    import pyarrow as pa

    path = Path(path)
    if not path.exists():
        raise UserError(f"no table {path}")
    lower = path.name.lower()
    try:
        if lower.endswith(".parquet") or path.is_dir():
            import pyarrow.parquet as pq

            return pq.read_table(path)
        if lower.endswith((".arrow", ".feather")):
            import pyarrow.feather as feather

            try:
                return feather.read_table(path)
            except pa.ArrowInvalid:  # the streaming format, as `datasets` writes it
                with pa.memory_map(str(path)) as mapped:
                    return pa.ipc.open_stream(mapped).read_all()
        if lower.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            from pyarrow import csv

            separator = "\t" if ".tsv" in lower else ","
            blanks = csv.ConvertOptions(strings_can_be_null=True, null_values=["", "?", "NA", "NaN", "nan", "null"])
            return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=separator), convert_options=blanks)
        if lower.endswith((".jsonl", ".jsonl.gz", ".json")):
            import pyarrow.json as pj

            return pj.read_json(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"table {path}: cannot be read ({str(error).splitlines()[0]})") from error
    raise UserError(f"table {path}: unknown ending; use one of {', '.join(ENDINGS)}")


@dataclass
class Tabular:
    """path: one file, split by a hash of each row's id; or splits: {split: file}.

    label: the column with the answer. Text labels are classes (in alphabetic order, or as `classes` says) and become
    indices; numbers stay numbers. id: the column that names a row (default: its number). drop: columns left out of
    "row". frame: a pandas or polars data frame instead of a file; such a source cannot be saved with a recipe.
    """

    path: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    label: str = ""
    id: str = ""
    drop: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    val: float = 0.1
    test: float = 0.2
    seed: int = 0
    frame: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.path = str(self.path)
        given = sum([bool(self.path), bool(self.splits), self.frame is not None])
        if given != 1:
            raise UserError("table: give one of path=FILE, splits={'train': FILE, ...} or frame=DATAFRAME")
        check_fractions(self.val, self.test, f"table {self.path}")

    def open(self, split: str) -> Records:
        what = f"table {self.path or 'splits' if self.frame is None else 'frame'}"
        check_split(split, self.splits or SPLITS, what)
        if self.splits:
            table = read_table(self.splits[split])
            keep = None
        else:
            table = read_table(self.path) if self.frame is None else from_frame(self.frame)
            keep = places(self._names(table), split, self.seed, self.val, self.test)
        for column in [c for c in (self.label, self.id, *self.drop) if c]:
            if column not in table.column_names:
                raise UserError(f"{what}: no column {column!r}; {nearest(column, table.column_names)}")
        classes = self.classes or self._classes(table)
        if keep is not None:
            import pyarrow as pa

            table = table.take(pa.array(keep, pa.int64()))
        names = self._names(table) if self.id else [str(i) for i in (keep or range(len(table)))]
        info: dict[str, Any] = {"about": f"rows of {Path(self.path).name or 'a table'}", "synthetic": False}
        if classes:
            info["classes"] = classes
        left_out = {self.label, self.id, *self.drop}
        return Records(TableRows(table, names, self.label, classes, left_out), info)

    def _names(self, table: Any) -> list[str]:
        if self.id and self.id in table.column_names:
            return [str(v) for v in table[self.id].to_pylist()]
        return [str(i) for i in range(len(table))]

    def _classes(self, table: Any) -> list[str]:
        """The class names of a text label; with splits, those of all of them."""
        if not self.label:
            return []
        tables = [table] if not self.splits else [read_table(p) for p in self.splits.values()]
        found: set[str] = set()
        for one in tables:
            if self.label in one.column_names:
                values = one[self.label].unique().to_pylist()
                if any(not isinstance(v, str) for v in values if v is not None):
                    return []
                found |= {v for v in values if v is not None}
        return sorted(found)


def from_frame(frame: Any) -> Any:
    """pandas, polars or pyarrow -> pyarrow Table."""
    import pyarrow as pa

    if isinstance(frame, pa.Table):
        return frame
    if hasattr(frame, "to_arrow"):
        return frame.to_arrow()
    if hasattr(frame, "columns") and hasattr(frame, "iloc"):
        return pa.Table.from_pandas(frame, preserve_index=False)
    raise UserError(f"table: a {type(frame).__name__} is no table; give pandas, polars or pyarrow")


class TableRows(Sequence[Record]):
    """Rows of a table as records; only the row asked for is turned into Python values."""

    def __init__(self, table: Any, names: list[str], label: str, classes: list[str], left_out: set[str]) -> None:
        self.table, self.names, self.label, self.left_out = table, names, label, left_out
        self.classes = {name: i for i, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        values = {name: value(column[index].as_py()) for name, column in self._columns()}
        record: Record = values | {"id": self.names[index]}
        record["row"] = {k: v for k, v in values.items() if k not in self.left_out}
        if self.label:
            answer = values[self.label]
            if self.classes and answer is not None:
                if str(answer) not in self.classes:
                    raise UserError(f"label {answer!r} is not among the classes; {nearest(answer, self.classes)}")
                answer = self.classes[str(answer)]
            record["label"] = answer
        return record

    def _columns(self) -> list[tuple[str, Any]]:
        return list(zip(self.table.column_names, self.table.columns, strict=True))


def value(found: Any) -> Any:
    """A cell as its field's value: pictures stored as {"bytes", "path"} opened, sounds as their bytes."""
    if isinstance(found, dict) and set(found) == {"bytes", "path"}:
        if found["bytes"] is None:
            return Path(found["path"]) if found["path"] else None
        try:
            return picture(found["bytes"])
        except OSError:
            return found["bytes"]
    return found
