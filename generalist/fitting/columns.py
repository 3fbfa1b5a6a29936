"""What each column of a table is: a number, a category, a date, free text, files, molecules, a series, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.labels import is_empty
from generalist.data.files.paths import beside
from generalist.data.media.codec import shows
from generalist.data.media.kinds import MEDIA, ending
from generalist.data.tables.dates import style_of
from generalist.data.tables.identity import is_key, names_rows
from generalist.data.tables.media_columns import file_columns, media_columns
from generalist.tokenizers_mod.tables.schema import is_missing

WORDS = 3.0  # on average from which differing texts are read as text
LONG = 40  # characters likewise
DIFFER = 0.3  # of the rows whose texts differ, likewise
LOOKED_AT = 400  # cells of a column that are read one by one
SERIES = 4  # numbers in every cell from which a list is a series
# kinds whose cells stand in the row that the table modality reads
IN_ROW = ("number", "category", "boolean", "date")
# kinds that are an input of their own
APART = ("text", "picture", "sound", "clip", "smiles", "graph", "series")


@dataclass
class Column:
    """kind: of IN_ROW or APART, or "id", "constant", "empty", "list", "date" ... ; why: said beside it.

    values: its cells in all rows, None where there is none. absent: cells that name a file which is not there.
    """

    name: str
    kind: str
    values: list[Any]
    why: str = ""
    absent: int = 0

    @property
    def present(self) -> list[Any]:
        return [v for v in self.values if not _is_gap(v)]


def look(table: Any, folder: Path) -> list[Column]:
    """The columns of a pyarrow table whose file lies in `folder`."""
    files, held = file_columns(table, folder), media_columns(table)
    return [_column(name, table[name].to_pylist(), folder, name in files, name in held) for name in table.column_names]


def _column(name: str, values: list[Any], folder: Path, names_files: bool, holds_media: bool) -> Column:
    present = [v for v in values if not _is_gap(v)]
    if not present:
        return Column(name, "empty", values, "no value at all")
    if names_files:
        kind = media_kind(str(present[0]))
        absent = sum(not beside(folder, str(v)).is_file() for v in present)
        return Column(name, kind, values, absent=absent)
    if holds_media:
        return Column(name, _held_kind(present[0]), values)
    if any(isinstance(v, list | dict | np.ndarray) for v in present[:LOOKED_AT]):
        return _nested(name, values, present)
    if isinstance(present[0], date | datetime) or style_of(present) is not None:
        return Column(name, "date", values)
    if len(set(map(str, present))) == 1 and len(present) == len(values):
        return Column(name, "constant", values, f"{present[0]!r:.30} in every row")
    if all(isinstance(v, bool) for v in present):
        return Column(name, "boolean", values)
    if not all(isinstance(v, str) for v in present):
        kind = "id" if names_rows(name, values) else "number"
        return Column(name, kind, values, "names the rows" if kind == "id" else "")
    if is_molecules(name, present):
        return Column(name, "smiles", values)
    if is_text(present):
        return Column(name, "text", values)
    if names_rows(name, values) or (is_key(name, present) and len(set(present)) == len(values)):
        return Column(name, "id", values, "names the rows")
    return Column(name, "category", values)


def is_text(present: Sequence[str]) -> bool:
    """Whether texts say something beyond naming one of several: of several words or long, and mostly different."""
    some = list(present[:: max(1, len(present) // LOOKED_AT)])
    words = float(np.mean([len(v.split()) for v in some]))
    letters = float(np.mean([len(v) for v in some]))
    differ = len(set(present)) >= DIFFER * len(present)
    return differ and (words >= WORDS or (letters >= LONG and words >= 2))


def is_molecules(name: str, present: Sequence[str]) -> bool:
    """Whether a column that is called so holds SMILES strings."""
    if "smiles" not in name.lower():
        return False
    return all(" " not in v.strip() for v in present[:LOOKED_AT])


def media_kind(file: str) -> str:
    """ "picture", "sound" or "clip" by the ending of a file's name."""
    end = ending(Path(file))
    return next((word.removesuffix("s") for word, ends in MEDIA.items() if end in ends), "picture")


def _held_kind(cell: Any) -> str:
    if isinstance(cell, dict):
        if cell.get("path"):
            return media_kind(cell["path"])
        cell = cell["bytes"] or b""
    return "picture" if shows(cell) else "sound"


def _nested(name: str, values: list[Any], present: list[Any]) -> Column:
    some = present[:LOOKED_AT]
    if all(isinstance(v, list) and len(v) >= SERIES and (_is_numbers(v) or _is_rows(v)) for v in some):
        return Column(name, "series", values)
    if all(isinstance(v, dict) and "edges" in v for v in some):
        return Column(name, "graph", values)
    return Column(name, "list", values, f"cells are {type(some[0]).__name__}s")


def _is_numbers(cell: list[Any]) -> bool:
    return all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in cell)


def _is_rows(cell: list[Any]) -> bool:
    """A step of time a row, each with as many numbers: several channels."""
    return all(isinstance(row, list) and _is_numbers(row) for row in cell) and len({len(row) for row in cell}) == 1


def _is_gap(cell: Any) -> bool:
    return is_empty(cell) if isinstance(cell, list | dict | bytes) or cell is None else is_missing(cell)
