"""What changed in a run's data while it was stopped: a resume goes on only with what it was begun on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.train.prepare import Prepared

COUNTS = "data.json"  # in the run's folder: training records of every task when it was begun


def counts(prepared: Prepared) -> dict[str, int]:
    return {name: len(records) for name, records in prepared.records.items()}


def check_same(prepared: Prepared, out: Path, saved: Path) -> str:
    """A note where there are other records than at the start of the run, "" where there are not.

    saved: the checkpoint's model folder. UserError where what was learnt from the data (classes, a table's columns,
    numbers' bins) would be learnt otherwise now.
    """
    before = json.loads((saved / "processor_config.json").read_text(encoding="utf-8"))
    now = json.loads(prepared.processor().to_json_string())
    changed = []
    for name in now["candidate_sets"]:
        changed += _sets(name, before["candidate_sets"].get(name, {}), now["candidate_sets"][name])
    for name, settings in now["modalities"].items():
        changed += _settings(name, before["modalities"].get(name, {}), settings)
    if changed:
        told = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise UserError(
            f"the data of {out} changed since it was begun: {told}. Put it back to resume, or start anew from these "
            f"weights: init={saved} and another --out"
        )
    held = json.loads((out / COUNTS).read_text(encoding="utf-8")) if (out / COUNTS).is_file() else counts(prepared)
    grown = [f"{name} has {n} training records, {held[name]} before" for name, n in counts(prepared).items()
             if held.get(name, n) != n]  # fmt: skip
    return f"the data changed, so samples come in another order from here on: {'; '.join(grown)}" if grown else ""


def _sets(task: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if before == now:
        return []
    one, other = (list(values.get("names", [])) for values in (before, now))
    new, lost = [n for n in other if n not in one], [n for n in one if n not in other]
    if not one or not (new or lost):
        return [f"task {task}: its candidates are others"]
    parts = [f"{word} {', '.join(map(repr, some[:4]))}" for word, some in (("new", new), ("gone", lost)) if some]
    return [f"task {task}: {len(one)} -> {len(other)} classes ({'; '.join(parts)})"]


def _settings(modality: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a modality learnt from data; of a table its columns are named."""
    if before == now:
        return []
    changed = []
    for key in now.keys() | before.keys():
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            changed += [
                f"{modality}: {key} of {n}{_columns(one.get(n), other.get(n))}" for n in other if one.get(n) != other[n]
            ]
        else:
            changed.append(f"{modality}: {key}")
    return changed


def _columns(before: Any, now: Any) -> str:
    if not isinstance(before, dict) or "columns" not in before or "columns" not in now:
        return ""
    one, other = ({c["name"]: c for c in held["columns"]} for held in (before, now))
    odd = [n for n in {**one, **other} if one.get(n) != other.get(n)]
    return f" (columns {', '.join(odd[:4])})"
