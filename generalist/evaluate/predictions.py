"""Saved answers: a file of JSON lines, one an answer, from which every number is derived again.

{"lines": "named", "metric": "accuracy", "kind": "classify", "names": ["cat", "dog"]}      the head
{"id": "photos/7.jpg", "label": 0, "answer": 1, "confidence": 0.61, "nll": 0.94, "rank": 1, ...}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.evaluate import measures
from generalist.evaluate.answer import Answers
from generalist.tasks.base.reading import Reading
from generalist.tasks.measures.lines import KINDS, Columns, columns_of, rows_of

NAMED = 1000  # candidates up to which their names stand in the head


def kept(answers: Answers) -> Columns:
    """The columns of everything asked, both directions where the task has two; "record" is the record's number."""
    return dict(answers.columns)


def head_of(task: Reading) -> dict[str, Any]:
    """What stands above the lines: their kind, the task's metric and kind, the candidates' names where they are few."""
    head: dict[str, Any] = {"lines": task.line_kind, "metric": task.metric, "kind": task.kind}
    if task.candidates is not None:
        names = task.candidates.labels(task.modalities)
        head |= {"names": names} if len(names) <= NAMED else {}
    return head


def save(path: Path, head: dict[str, Any], ids: list[str], columns: Columns) -> None:
    """The head and one line an answer; ids: of all records. UserError where the file cannot be written."""
    rest = {name: column for name, column in columns.items() if name != "record"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head) + "\n")
            for record, row in zip(columns["record"].tolist(), rows_of(rest), strict=True):
                file.write(json.dumps({"id": ids[record] or str(record), **row}) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from error


def read(path: Path) -> tuple[dict[str, Any], Columns]:
    """A saved file's head and columns, "record" and "id" among them. UserError: it is no such file."""
    try:
        head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        columns = columns_of(rows)
        number: dict[str, int] = {}  # in order of appearance, as when they were asked
        columns["record"] = np.array([number.setdefault(str(i), len(number)) for i in columns["id"].tolist()])
        if head["lines"] not in KINDS:
            raise KeyError(head["lines"])
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no saved answers ({error}); make it again with generalist eval") from error
    return head, columns


def derived(path: Path) -> dict[str, float]:
    """Every measure again, from the file alone."""
    head, columns = read(path)
    return measures.values(head["lines"], columns)
