"""The report's sections on errors and on the training samples nearest to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generalist.report.page import render
from generalist.report.sections.inputs import show
from generalist.report.sections.samples import card

COLUMNS = 12  # slices are shown by so many columns


def errors_section(found: dict[str, Any]) -> str:
    """The worst answers, the confusion matrix and the slices."""
    return render("errors.html", found=found, cards=[_costed(one, found) for one in found["worst"]], columns=COLUMNS)


def _costed(one: dict[str, Any], found: dict[str, Any]) -> str:
    note = "; ".join([f"{found['by']}: {one['told']}", *([one["note"]] if "note" in one else [])])
    return card({**one, "note": note}, str(found["task"]), Path("inspect"))


def similar_section(found: dict[str, Any]) -> str:
    """Each test sample beside its nearest training samples."""
    rows = [
        (card(one, str(found["task"]), Path("inspect")), [(near, show(near["input"])) for near in one["near"]])
        for one in found["samples"]
    ]
    return render("similar.html", found=found, rows=rows)
