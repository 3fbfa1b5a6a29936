"""The report's section on what is taken for what: every classification of a run, from its saved answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.evaluate.predictions import read
from generalist.inspect.errors import confusion
from generalist.report.page import render

CLASSES = 30  # up to which the whole matrix is shown; of more the pairs that are confused most
PAIRS = 20


def confusion_section(run: Path, tasks: dict[str, dict[str, Any]]) -> str:
    """tasks: the lines of metrics.json. "" where the run kept the answers of no classification."""
    found = [one for name, line in tasks.items() if (one := _of(run, name, line)) is not None]
    return render("confused.html", tasks=found) if found else ""


def _of(run: Path, name: str, line: dict[str, Any]) -> dict[str, Any] | None:
    """What a classification's answers say; None for another task, and where they were not kept."""
    path = run / "answers" / str(line.get("answers", ""))
    if not path.is_file():
        return None
    head, columns = read(path)
    # a file of an earlier version tells no kind; of what has no names either it cannot be known that they are classes
    if head["lines"] != "named" or head.get("kind", "classify") != "classify" or not {"kind", "names"} & set(head):
        return None
    if not {"label", "answer"} <= set(columns):
        raise UserError(f"{path} lacks the labels or the answers; make it again with `generalist eval {run}`")
    label, said = columns["label"], columns["answer"]
    names = head.get("names") or [f"candidate {i}" for i in range(int(max(label.max(), said.max())) + 1)]
    matrix = confusion(columns, [str(n) for n in names], CLASSES, PAIRS)
    return {"name": name, "n": len(label), "wrong": int(np.sum(label != said)), "matrix": matrix, "most": CLASSES}
