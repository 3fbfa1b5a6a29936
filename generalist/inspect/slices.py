"""A task's measure over parts of its records: those that have one value of one column."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.data.stream.source import Record, Records
from generalist.evaluate import measures
from generalist.tasks.base.task import Task
from generalist.tasks.measures.lines import Columns

MOST = 20  # values of a column that is sliced by
EMPTY = "(empty)"


def plain_columns(record: Record) -> dict[str, Any]:
    """The record's words, numbers and booleans, those of a row inside it among them: {column: value}."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        inside = value.items() if isinstance(value, dict) else [(name, value)]
        for key, one in inside:
            one = one.item() if isinstance(one, np.generic) else one
            if one is None or isinstance(one, str | int | float):
                found.setdefault(str(key), one)
    return found


def columns_of(records: Records, without: set[str]) -> dict[str, list[str]]:
    """{column: its value as text, one a record} of those with 2 to MOST values, fewer than there are records."""
    values: dict[str, list[str]] = {}
    seen: dict[str, set[str]] = {}
    closed = {"id", *without}
    for number in range(len(records)):
        row = plain_columns(records[number])
        for name in [*values, *(name for name in row if name not in values)]:
            if name in closed:
                continue
            value = row.get(name)
            text = EMPTY if value is None or value != value or value == "" else str(value)
            values.setdefault(name, [EMPTY] * number).append(text)
            seen.setdefault(name, {EMPTY} if number else set()).add(text)
            if len(seen[name]) > MOST + 1:
                closed.add(name)
                del values[name]
    return {n: v for n, v in values.items() if 2 <= len(set(v)) <= MOST and len(set(v)) < len(records)}


def slices(task: Task, columns: Columns, records: Records) -> list[dict[str, Any]]:
    """[{"column", "values": [{"value", "n", "measure"}]}], the worst value first; the most telling column first.

    A column tells as much as its values differ: the variance between them, each counted by its records, over their
    number less one, for many values differ by chance alone.
    """
    metric = task.also_called.get(task.metric, task.metric)
    sign = 1 if task.higher_is_better else -1
    found = []
    for name, texts in columns_of(records, set(task.answer_fields())).items():
        of_answer = np.array(texts, dtype=object)[columns["record"]]
        lines: list[dict[str, Any]] = []
        for value in dict.fromkeys(texts):
            at = of_answer == value
            if at.any():
                part = {key: column[at] for key, column in columns.items()}
                lines.append(
                    {"value": value, "n": texts.count(value), "measure": measures.values(task.line_kind, part)[metric]}
                )
        lines.sort(key=lambda line: sign * line["measure"])
        found.append({"column": name, "values": lines})
    return sorted(found, key=lambda column: -_spread(column["values"]))


def _spread(lines: list[dict[str, Any]]) -> float:
    n, measure = (np.array([line[key] for line in lines], float) for key in ("n", "measure"))
    return float((n * (measure - (n * measure).sum() / n.sum()) ** 2).sum() / max(len(n) - 1, 1))
