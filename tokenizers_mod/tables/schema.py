"""What is known of a table before training: its columns, their kinds, scales and categories.

Learnt once from training rows (`Schema.learn`) and then part of the settings: JSON values only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.foreign import acts_as
from generalist.data.base.outliers import EXTREME, inside
from generalist.data.tables.dates import PARTS, moment, parts_of, style_of
from generalist.data.tables.typed import decimal_of, is_gap, number, reading

MISSING = frozenset({"", "?", "NA", "N/A", "NaN", "nan", "<NA>"})  # words that tables use for a missing value


def is_missing(value: Any) -> bool:
    """None, NaN (of any library) or one of the words in `MISSING`."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING
    if isinstance(value, int | float):
        return bool(value != value)
    return np.ndim(value) == 0 and (str(value) in MISSING or bool(value != value))


def category_name(value: Any) -> str:
    """One name a category however the number was stored: 3, 3.0 and "3" are the same."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def to_number(value: Any) -> float | None:
    """The value as a float, or None when it is none (booleans are categories)."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number that is too large for a float
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None


@dataclass
class Column:
    """kind "numeric": mean, std and quantiles (increasing, in the column's unit); "categorical": categories.

    of, part, style: a number made of the dates of the table's column `of`, written in this style
    (`generalist.data.tables.dates`).
    decimal: the mark of numbers written as text. odd: training cells that were no number or date; it is missing.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    quantiles: list[float] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    of: str = ""
    part: str = ""
    style: str = ""
    decimal: str = "."
    odd: int = 0

    @property
    def source(self) -> str:
        """The column of a row that it is read from."""
        return self.of or self.name

    def number(self, cell: Any) -> float | None:
        """A cell of a numeric column as a number; None where it is none."""
        if self.part:
            when = moment(cell, self.style)
            return None if when is None else parts_of(when)[self.part]
        return number(cell, self.decimal) if isinstance(cell, str) else to_number(cell)


@dataclass
class Schema:
    """columns in order; target: a column that rows may hold and that is never an input."""

    columns: list[Column]
    target: str | None = None

    @classmethod
    def learn(
        cls,
        rows: Any,
        target: str | None = None,
        categorical: Collection[str] = (),
        bins: int = 16,
        most: int = 1000,
    ) -> Schema:
        """From training rows only: list of dicts, or a data frame of pandas or polars.

        A column is numeric when its values read as numbers (nine in ten where they are text,
        `generalist.data.tables.typed`) and it is
        not named in `categorical`. A column of dates becomes several numbers. bins: quantile bins of numeric columns.
        most: only this many most frequent categories are kept, the others become unknown.
        UserError: no rows, rows with different columns, an infinite value, a column without any value.
        """
        table = _columns(rows)
        for name in [*categorical, *([target] if target is not None else [])]:
            if name not in table:
                raise UserError(f"table: no column {name!r}; {nearest(name, table)}")
        columns = []
        for name, values in table.items():
            if name == target:
                continue
            present = [v for v in values if not is_missing(v)]
            if not present:
                raise UserError(f"table: column {name!r} has no value at all; drop it")
            columns += _learnt(name, present, bins, most, name in categorical)
        return cls(columns, target)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Schema:
        """UserError when the dict is not a schema."""
        try:
            columns = [Column(**column) for column in values["columns"]]
            schema = cls(columns, values.get("target"))
        except (TypeError, KeyError) as error:
            valid = ", ".join(f.name for f in fields(Column))
            raise UserError(f"table: not a schema ({error}); columns have {valid}") from error
        for column in columns:
            if column.kind not in ("numeric", "categorical"):
                raise UserError(f"table: column {column.name!r} is {column.kind!r}; numeric or categorical")
            if not column.std > 0:
                raise UserError(f"table: column {column.name!r} has std {column.std}; it must be > 0")
        names = Counter(column.name for column in columns)
        if double := [name for name, count in names.items() if count > 1]:
            raise UserError(f"table: column {double[0]!r} appears twice in the schema")
        return schema


def _learnt(name: str, present: list[Any], bins: int, most: int, categorical: bool) -> list[Column]:
    """What a column of the table becomes: itself, or the numbers of its dates."""
    if categorical:
        return [_categorical(name, present, most)]
    if any(isinstance(v, str) for v in present):
        counts = Counter(v if isinstance(v, str) else category_name(v) for v in present)
        decimal = decimal_of(counts)
        read = reading(counts, decimal)
        if read.kind == "date":
            return _dates(name, present, bins)
        if read.kind not in ("integer", "number"):
            return [_categorical(name, present, most)]
        found = [v for v in present if not (isinstance(v, str) and is_gap(v))]
        column = Column(name, "numeric", decimal=decimal)
    else:
        if style_of(present) is not None:
            return _dates(name, present, bins)
        found, column = present, Column(name, "numeric")
    values = [column.number(v) for v in found]
    if any(v is None and not isinstance(cell, str) for v, cell in zip(values, found, strict=True)):
        return [_categorical(name, present, most)]
    numbers = np.asarray([v for v in values if v is not None], dtype=np.float64)
    return [_numeric(replace(column, odd=len(values) - len(numbers)), numbers, bins)]


def _categorical(name: str, present: list[Any], most: int) -> Column:
    counts = Counter(category_name(v) for v in present)
    kept = sorted(counts, key=lambda c: (-counts[c], c))[:most]
    return Column(name, "categorical", categories=sorted(kept))


def _dates(name: str, present: list[Any], bins: int) -> list[Column]:
    """The numbers of a column of dates: the moment, and those of the others that differ in training."""
    style = (style_of(present) or ("iso", False))[0]
    found = [when for v in present if (when := moment(v, style)) is not None]
    told = [parts_of(when) for when in found]
    out = []
    for part in PARTS:
        values = np.asarray([one[part] for one in told], dtype=np.float64)
        if part == PARTS[0] or np.ptp(values) > 0:
            column = Column(f"{name}: {part}", "numeric", of=name, part=part, style=style)
            out.append(_numeric(replace(column, odd=len(present) - len(found)), values, bins))
    return out


def _columns(rows: Any) -> dict[str, list]:
    if acts_as(rows, "to_dict", "columns"):
        table = {str(name): rows[name].to_list() for name in rows.columns}
        if len(table) != len(rows.columns):
            raise UserError("table: two columns have the same name; rename one")
    else:
        rows = list(rows)
        names = list(rows[0]) if rows else []
        for i, row in enumerate(rows):
            if set(row) != set(names):
                odd = sorted(map(str, set(row) ^ set(names)))
                raise UserError(f"table: row {i} differs from row 0 in columns {odd}; give every row all columns")
        table = {str(name): [row[name] for row in rows] for name in names}
    if not table or not next(iter(table.values())):
        raise UserError("table: no rows to learn the schema from")
    return table


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of at most `bins` quantile bins.

    Where ties make quantiles coincide (a column that is mostly 0), the bins that are left over go to quantiles of the
    distinct values: the rare values of such a column often tell most.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    distinct, spare = np.unique(values), bins + 1 - len(edges)
    if spare > 0 and len(distinct) > len(edges):
        more = np.quantile(distinct, np.linspace(0, 1, spare + 2)[1:-1], method="nearest")
        edges = np.union1d(edges, more)
    return edges


def _numeric(column: Column, values: np.ndarray, bins: int) -> Column:
    if not np.isfinite(values).all():
        raise UserError(f"table: column {column.name!r} has infinite values; replace or remove them")
    edges = _edges(values, bins)
    values = values[inside(values, EXTREME)]  # one wild value leaves float32 nothing of the others
    size = np.abs(values).max() or 1.0  # squares of very large numbers overflow
    std = float((values / size).std() * size)
    # a constant column's std is rounding noise
    std = std if std > 1e-12 * size else 1.0
    return replace(column, mean=float((values / size).mean() * size), std=std, quantiles=edges.tolist())
