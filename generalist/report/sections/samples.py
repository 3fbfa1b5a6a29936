"""Some predictions of a run, each with the input it was made for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.report.page import render
from generalist.report.sections.inputs import show

SHOWN = 6  # a task
ANSWERS = 5  # a prediction


def predictions_section(samples: dict[str, Any], path: Path) -> str:
    """Cards of every task in predictions.json: input, truth, and the answers with their probabilities."""
    tasks = samples.get("tasks")
    if not isinstance(tasks, dict) or not all(isinstance(items, list) for items in tasks.values()):
        again = f"make it again with `generalist eval {path.parent}`"
        raise UserError(f"{path} has no object 'tasks' of lists: {again}")
    shown = [
        (name, len(items), [card(item, str(name), path) for item in sorted(items, key=_place)[:SHOWN]])
        for name, items in tasks.items()
    ]
    return render("samples.html", tasks=shown)


def _place(item: Any) -> tuple[int, float]:
    """Mistakes stand first, the surest on top; what is neither right nor wrong keeps its order."""
    if not isinstance(item, dict) or item.get("correct") is not False:
        return 1, 0.0
    try:
        return 0, -float((item.get("answers") or [["", 0.0]])[0][1])
    except (TypeError, ValueError, LookupError):  # `card` says what is wrong with it
        return 0, 0.0


def card(item: Any, task: str, path: Path) -> str:
    """A prediction: its input, the truth and the answers, with a "note" where it has one."""
    if not isinstance(item, dict):
        raise UserError(f"{path}: a prediction of task {task!r} is not an object: make the file again")
    correct, truth = item.get("correct"), item.get("truth")
    pairs = _pairs(item.get("answers") or [], f"{path}: task {task!r}")
    alone = correct is None and len(pairs) == 1 and pairs[0][1] == 1  # a statement, no choice among candidates
    return render(
        "card.html",
        id=item.get("id", ""),
        correct=correct,
        picture=show(item.get("input")),
        truth=truth,
        note=item.get("note"),
        statement=pairs[0][0] if alone else "",
        bars=[_bar(i, *pair, truth, correct) for i, pair in enumerate(pairs[:ANSWERS])],
        more=len(pairs) - ANSWERS,
    )


def _pairs(answers: list, where: str) -> list[tuple[str, float]]:
    try:
        return [(str(answer), float(p)) for answer, p in answers]
    except (TypeError, ValueError):
        raise UserError(f"{where}: 'answers' must be a list of [answer, probability]: make the file again") from None


def _bar(place: int, answer: str, p: float, truth: Any, correct: bool | None) -> dict[str, str]:
    # A forecast or a number is not simply right or wrong (correct is null): no colour judges it.
    is_true = correct is not None and (answer == str(truth) or (place == 0 and correct is True))
    wide = min(max(p, 0.0), 1.0) * 100 if math.isfinite(p) else 0.0
    kind = " ".join(["first"] * (place == 0) + ["true"] * is_true)
    return {"kind": kind, "answer": answer, "percent": _percent(p), "wide": f"{wide:.1f}"}


def _percent(p: float) -> str:
    if not math.isfinite(p):
        return "?"
    return "<1\u00a0%" if 0 < p < 0.005 else f"{100 * p:.0f}\u00a0%"
