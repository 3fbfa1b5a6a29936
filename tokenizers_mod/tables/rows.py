"""What people hold as one row of a table -> {column: value}: dicts, JSON, one row of a data frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import acts_as
from generalist.data.media import jsons
from generalist.data.sources.tabular import read_table
from generalist.tokenizers_mod.tables.schema import to_number


def as_row(raw: Any) -> Any:
    """A row of pandas (Series) or of polars (a frame of one row) as a dict; anything else as it is."""
    if acts_as(raw, "to_dicts"):
        rows = raw.to_dicts()
        if len(rows) != 1:
            raise UserError(
                f"table: a data frame of {len(rows)} rows where one is wanted; give frame.row(i, named=True)"
            )
        return rows[0]
    return raw.to_dict() if acts_as(raw, "to_dict") else raw


def first_row(path: Path, what: str) -> dict[str, Any]:
    """The first row of a .csv or .json file; `what` names it in errors."""
    try:
        if path.suffix == ".json":
            loaded = jsons.load(path, what)
            row = loaded[0] if isinstance(loaded, list) else loaded
        else:
            row = read_table(path).slice(0, 1).to_pylist()[0]
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    except (ValueError, IndexError, KeyError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{what}: {path} holds no row ({reason}); give a .csv with a header or a .json") from error
    if not isinstance(row, dict):
        raise UserError(f"{what}: {path} does not hold a row of named values")
    return row


def plain_cell(value: Any) -> Any:
    number = to_number(value)
    return (value if value is None else str(value)) if number is None else number
