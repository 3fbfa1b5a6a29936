"""The rows of a table as records: a column's cells on demand, missing ones None, classes by their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.data.files.paths import beside
from generalist.data.media.codec import picture, shows
from generalist.data.stream.source import ByColumn, Record


@dataclass(frozen=True)
class Named:
    """Columns whose cells are names of files, relative to the folder. absent: one that is not there is missing."""

    folder: Path
    columns: frozenset[str]
    absent: bool = False

    def of(self, name: str, cell: Any) -> Any:
        if name not in self.columns:
            return value(cell)
        path = beside(self.folder, cell) if cell else None
        return None if path is None or (self.absent and not path.is_file()) else path


class TableRows(ByColumn):
    """Rows of a table as records; only the row asked for is turned into Python values. answers: their labels."""

    def __init__(
        self, table: Any, names: list[str], answers: list[Any] | None, left_out: set[str], files: Named
    ) -> None:
        self.table, self.names, self.answers, self.left_out, self.files = table, names, answers, left_out, files

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        values = {name: self.files.of(name, column[index].as_py()) for name, column in self._columns()}
        record: Record = values | {"id": self.names[index]}
        record["row"] = {k: v for k, v in values.items() if k not in self.left_out and k not in self.files.columns}
        if self.answers is not None:
            record["label"] = self.answers[index]
        return record

    def column(self, name: str) -> list[Any] | None:
        if name == "label" and self.answers is not None:
            return self.answers
        if name == "id":
            return self.names
        if name not in self.table.column_names:
            return None
        cells = self.table[name].to_pylist()
        return [self.files.of(name, cell) for cell in cells] if self.files.absent else cells

    def _columns(self) -> list[tuple[str, Any]]:
        return list(zip(self.table.column_names, self.table.columns, strict=True))


def value(found: Any) -> Any:
    """A cell as its field's value: pictures stored as {"bytes", "path"} or as bytes opened, sounds as their bytes."""
    if isinstance(found, dict) and set(found) == {"bytes", "path"}:
        if found["bytes"] is None:
            return Path(found["path"]) if found["path"] else None
        try:
            return picture(found["bytes"])
        except OSError:
            return found["bytes"]
    if isinstance(found, bytes) and shows(found):
        try:
            return picture(found)
        except OSError:  # broken: whoever reads it says so
            return found
    return found
