"""Evaluation samples that stand in the training data, and the measures without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.source import Records
from generalist.data.tools.known import Known
from generalist.evaluate import measures
from generalist.tasks.base.task import Task
from generalist.tasks.measures.lines import Columns

SHOWN = 50  # leaked samples named


def compared_fields(task: Task) -> set[str]:
    """The fields of a record that are looked at: what goes in, and the other side of a retrieval."""
    return {*task.inputs.values(), *task.other_side().values()}


def find_leaks(training: Records, records: Records, fields: set[str]) -> list[dict[str, Any]]:
    """[{"record" its number, "id", "how": "exact" or "alike", "training": the other sample's name}].

    UserError: the training data lacks a field, so that nothing could be compared.
    """
    if not fields:  # then all records are alike
        raise UserError("no field to compare: the task has no inputs; say what goes in with --input")
    if not len(training):
        raise UserError("there is no training record to compare with")
    for name in fields:
        if name not in training[0]:
            raise UserError(f"the training data has no field {name!r} to compare; {nearest(name, training[0])}")
    return [
        {"record": i, "id": str(records[i].get("id", i)), "how": how, "training": name}
        for i, how, name in Known(training, fields).find(records)
    ]


def leakage(
    kind: str, columns: Columns, training: Records, records: Records, fields: set[str], resamples: int = 1000
) -> dict[str, Any]:
    """What result.json says: how many leaked and which, and every measure over the others (None where none is left)."""
    leaks = find_leaks(training, records, fields)
    left = ~np.isin(columns["record"], [leak["record"] for leak in leaks])
    rest = {name: value[left] for name, value in columns.items()}
    kinds = [leak["how"] for leak in leaks]
    return {
        "compared": {"training": len(training), "evaluation": len(records), "fields": sorted(fields)},
        "count": len(leaks),
        "exact": kinds.count("exact"),
        "alike": kinds.count("alike"),
        "samples": [{k: v for k, v in leak.items() if k != "record"} for leak in leaks[:SHOWN]],
        "measures": measures.intervals(kind, rest, resamples=resamples) if left.any() else None,
    }


def said(found: dict[str, Any], metric: str) -> str:
    """The result in a line or two."""
    of = found["compared"]
    head = f"leakage: {found['count']} of {of['evaluation']} samples are among {of['training']} training samples"
    head += f", {of['with']}" if "with" in of else ""
    if not found["count"]:
        return head
    head += f" ({found['exact']} exact, {found['alike']} alike)"
    left = (found["measures"] or {}).get(metric)
    if left is None:
        return head + "; none is left without them"
    bounds = "" if left["low"] is None else f" ({left['low']:.4f} .. {left['high']:.4f})"
    return head + f"\n{metric} without them: {left['value']:.4f}{bounds}"
