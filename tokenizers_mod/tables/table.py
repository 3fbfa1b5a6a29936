"""Table rows: one token a column (FT-Transformer), several tables in one model.

Source: FT-Transformer (2106.11959) section 3.3; piecewise-linear numeric features on quantile bins
(2203.05556, "On Embeddings for Numerical Features", section 3.2).

The category index of a token:  0 a number   1 missing   2 unknown   3... the categories of all columns
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest, told
from generalist.data.batch.types import Span
from generalist.data.tables.typed import is_gap
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.tables.rows import as_row, first_row, plain_cell
from generalist.tokenizers_mod.tables.schema import Column, Schema, category_name, is_missing, to_number
from generalist.tokenizers_mod.tables.tokens import FIRST, LARGEST, MISSING, NUMBER, UNKNOWN, TableTokens


@dataclass
class Table(Modality):
    """A row -> one token a column, in the schema's order.

    schemas: {table name: schema}, each a `Schema` or its JSON form (`Schema.learn(...)`).
    unknown: in training this share of categories is replaced by the unknown token, so that it is learnt.
    noise: in training, deviation of the Gaussian noise added to standardised numbers (small tables overfit without).
    drop: in training this share of cells is told as missing, so that no answer hangs on one column alone.
    bins: of a numeric column, where a schema is learnt: more of them let a large table be cut more finely.

    >>> rows = [{"age": 39, "city": "Oslo"}, {"age": None, "city": "Rome"}]
    >>> table = Table(schemas={"people": Schema.learn(rows)})
    >>> table.span(table.read(rows[1])).data["category"].tolist()[0] == MISSING
    True
    >>> table.span(table.read({"city": "Oslo", "age": 51})).length
    2
    """

    name: ClassVar[str] = "table"
    reads_words: ClassVar[bool] = True  # categories
    kind_keys: ClassVar[tuple[str, ...]] = ("column",)
    raw: ClassVar[str] = "dict, pandas Series or polars frame of one row, column name to value; None or NaN = missing"
    count: ClassVar[str] = "columns"

    schemas: dict[str, Any] = field(default_factory=dict)
    unknown: float = 0.01
    noise: float = 0.0
    bins: int = 16
    drop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.unknown <= 1:
            raise UserError(f"table: unknown is {self.unknown}; it is a share between 0 and 1")
        if not 0 <= self.drop < 1:
            raise UserError(f"table: drop is {self.drop}; it is a share, 0 <= drop < 1")
        if not 0 <= self.noise < float("inf"):
            raise UserError(f"table: noise is {self.noise}; it is a deviation of at least 0")
        if self.bins < 1:
            raise UserError(f"table: bins is {self.bins}; a numeric column has at least one bin")
        self.schemas = {n: s.to_json() if isinstance(s, Schema) else s for n, s in self.schemas.items()}
        self._adopted: dict[str, Any] = {}
        self._tables: dict[str, list[tuple[int, Column, dict[str, int]]]] = {}
        self._targets: dict[str, str | None] = {}
        column_at, category_at = 0, FIRST
        # by name, not in the order given: a saved configuration comes back with its keys sorted, and the numbers given
        # here are rows of trained weights
        for name, values in sorted(self.schemas.items()):
            schema = Schema.from_json(values)
            self._targets[name] = schema.target
            self._tables[name] = []
            for column in schema.columns:
                lookup = {c: category_at + i for i, c in enumerate(column.categories)}
                self._tables[name].append((column_at, column, lookup))
                column_at, category_at = column_at + 1, category_at + len(lookup)
        self._columns = {n: dict.fromkeys(c.source for _, c, _ in table) for n, table in self._tables.items()}
        self._categories = category_at

    def steady(self) -> tuple[str, ...]:
        return ("read",) if self.unknown or self.noise or self.drop else ("read", "span")

    def told(self) -> list[str]:
        """Columns that were no plain numbers or words, and how they are read."""
        out = []
        for table in self._tables.values():
            parts: dict[str, list[str]] = {}
            for _, column, _ in table:
                if column.part:
                    parts.setdefault(column.of, []).append(column.part)
                elif column.odd:
                    out.append(f"{column.name}: {column.odd} cells of the training rows are no number and missing")
            out += [f"{name}: dates, read as {', '.join(found)}" for name, found in parts.items()]
        return out

    def learn_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Learn the schema of table `name` from training rows; a schema that is there already stays.

        One that was adopted for a table of this name is taken where it has the same columns: weights belong to it.
        """
        if name in self.schemas:
            return
        adopted = self._adopted
        found = adopted.get(name)
        fits = found is not None and {c.source for c in Schema.from_json(found).columns} == {str(k) for k in rows[0]}
        self.schemas[name] = found if found is not None and fits else Schema.learn(rows, bins=self.bins).to_json()
        self.__post_init__()
        self._adopted = adopted

    def sources(self, name: str) -> list[str]:
        """The columns that a row of table `name` is read from."""
        return list(self._columns[name])

    def strange(self, name: str, rows: list[dict[str, Any]]) -> list[str]:
        """Categories in rows of table `name` that its schema does not know, a line a column; all are one to it."""
        out = []
        for _, column, lookup in self._tables[name]:
            if column.kind != "categorical":
                continue
            cells = [category_name(c) for row in rows if not is_missing(c := row.get(column.source))]
            odd = [cell for cell in cells if cell not in lookup]
            if odd:
                shown = ", ".join(list(dict.fromkeys(odd))[:4])
                out.append(f"{column.source}: {len(odd)} of {len(rows)} rows say what was never learnt ({shown})")
        return out

    def adopt_words(self, settings: dict[str, Any]) -> None:
        """The schemas of a saved table, for tables of the same names."""
        self._adopted = dict(settings.get("schemas", {}))

    def read(self, raw: Any, schema: str | None = None) -> dict[str, Tensor]:
        """A row -> {"column": [n], "value": [n], "category": [n]}, what `span` takes.

        schema: the table's name; None = the only one, or the one whose columns the row has.
        None, NaN, "" and "?" are the missing token; a category that the schema does not know is the unknown
        token (one for all columns; the column's own vector is added as to any other). A value for the
        target column is ignored. UserError: missing or extra columns, not a number, infinite.
        """
        raw = as_row(raw)
        if not isinstance(raw, dict):
            raise UserError(f"table: a row is a dict or pandas Series, got {type(raw).__name__}")
        row = {str(k): v for k, v in raw.items()}
        name = self._which(row, schema)
        table, target = self._tables[name], self._targets[name]
        names = self._columns[name]
        if extra := [k for k in row if k not in names and k != target]:
            raise UserError(f"table {name}: no column {extra[0]!r}; {nearest(extra[0], list(names))}")
        if missing := [n for n in names if n not in row]:
            raise UserError(f"table {name}: the row lacks {missing}; give None where a value is missing")
        value, category = np.zeros(len(table)), np.zeros(len(table), dtype=np.int64)
        for i, (_, column, lookup) in enumerate(table):
            cell = row[column.source]
            if not isinstance(cell, str | float | int) and np.ndim(cell) != 0:
                raise UserError(
                    f"table {name}: column {column.source!r} holds a {type(cell).__name__}; expected one value"
                )
            if is_missing(cell):
                category[i] = MISSING
            elif column.kind == "categorical":
                category[i] = lookup.get(category_name(cell), UNKNOWN)
            else:
                number = column.number(cell)
                if isinstance(cell, str) and number is None and (column.odd or is_gap(cell)):
                    category[i] = MISSING  # as in training, where it was counted
                    continue
                if number is None or not math.isfinite(number):
                    wanted = "date" if column.part else "finite number"
                    raise UserError(f"table {name}: column {column.source!r} holds {told(cell)}; expected a {wanted}")
                value[i] = min(max(number / column.std - column.mean / column.std, -LARGEST), LARGEST)
        return {
            "column": torch.tensor([at for at, _, _ in table]),
            "value": torch.from_numpy(value).float(),
            "category": torch.from_numpy(category),
        }

    def from_command_line(self, word: str) -> dict[str, Any]:
        """The first row of a .csv (with a header) or .json file. Raises UserError when it holds none."""
        return first_row(Path(super().from_command_line(word)), f"--{self.name}")

    def plain(self, raw: Any) -> Any:
        """The row's own columns: numbers, words, None where a cell is missing."""
        raw = as_row(raw)
        self.read(raw)
        row = {str(k): v for k, v in raw.items()}
        out: dict[str, Any] = {}
        for _, column, _ in self._tables[self._which(row, None)]:
            cell = row[column.source]
            if is_missing(cell):
                out[column.name] = None
            elif column.kind == "numeric":
                out[column.name] = column.number(cell)
            else:
                number = None if isinstance(cell, bool | str) else to_number(cell)
                out[column.name] = cell if number is None else number
        return out

    def _which(self, row: dict[str, Any], schema: str | None) -> str:
        if not self._tables:
            raise UserError("table: no schema; set schemas={'name': Schema.learn(rows, target)}")
        if schema is not None:
            if schema not in self._tables:
                raise UserError(f"table: no schema {schema!r}; {nearest(schema, self._tables)}")
            return schema
        if len(self._tables) == 1:
            return next(iter(self._tables))
        given = set(row)
        fit = [name for name in self._tables if given - {self._targets[name]} == self._columns[name].keys()]
        if len(fit) == 1:
            return fit[0]
        if fit:
            raise UserError(f"table: the row fits the schemas {fit}; say which")
        closest = max(self._tables, key=lambda n: len(given & self._columns[n].keys()))
        odd = sorted(given ^ self._columns[closest].keys())
        raise UserError(f"table: the row fits none of {list(self._tables)}; nearest is {closest!r}, differing in {odd}")

    def span(self, value: dict[str, Tensor], rng: torch.Generator | None = None) -> Span:
        """What `read` gives -> data {"column": [n], "value": [n], "category": [n]} (indices over all tables)."""
        if rng is not None and self.unknown:
            category = value["category"]
            hit = (torch.rand(len(category), generator=rng) < self.unknown) & (category >= FIRST)
            value = value | {"category": category.masked_fill(hit, UNKNOWN)}
        if rng is not None and self.noise:
            shaken = value["value"] + self.noise * torch.randn(len(value["value"]), generator=rng)
            value = value | {"value": torch.where(value["category"] == NUMBER, shaken, value["value"])}
        if rng is not None and self.drop:
            hit = torch.rand(len(value["column"]), generator=rng) < self.drop
            value = value | {name: value[name].masked_fill(hit, held) for name, held in self.content().items()}
        return Span(self.name, dict(value), len(value["column"]))

    def content(self) -> dict[str, float]:
        """A hidden cell is a missing one."""
        return {"value": 0.0, "category": MISSING}

    def tokens_in_words(self, span: Span) -> list[str]:
        """The columns."""
        names = [column.name for table in self._tables.values() for _, column, _ in table]
        return [names[i] for i in span.data["column"].tolist()]

    def hideable(self, span: Span) -> Tensor:
        """Cells that hold something known."""
        category = span.data["category"]
        return (category != MISSING) & (category != UNKNOWN)

    def show(self, raw: Any) -> dict[str, Any]:
        row = dict(as_row(raw))
        return {"kind": "table", "row": {str(k): v if isinstance(v, str) else plain_cell(v) for k, v in row.items()}}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.tables.examples import table

        return table()

    def build(self, width: int) -> TableTokens:
        columns = [column for table in self._tables.values() for _, column, _ in table]
        return TableTokens(columns, self._categories, width)
