"""Some predictions of a run, each with the input it was made for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.report.figures import esc, shorten
from generalist.report.sections.inputs import show

SHOWN = 6  # a task
ANSWERS = 5  # a prediction


def predictions_section(samples: dict[str, Any], path: Path) -> str:
    """Cards of every task in predictions.json: input, truth, and the answers with their probabilities."""
    tasks = samples.get("tasks")
    if not isinstance(tasks, dict) or not all(isinstance(items, list) for items in tasks.values()):
        again = f"make it again with `generalist eval {path.parent}`"
        raise UserError(f"{path} has no object 'tasks' of lists: {again}")
    out = [
        '<p class="note">Of the test items that were kept, mistakes first, the surest on top. Bars are p(y|x) over the '
        "task's candidates; the true answer is green. All test items by their error, and what is taken for what: "
        "<code>generalist inspect RUN --what errors</code>, then this report anew.</p>"
    ]
    for name, items in tasks.items():
        few = f'<span class="note">first {SHOWN} of {len(items)}</span>' if len(items) > SHOWN else ""
        cards = "".join(card(item, str(name), path) for item in sorted(items, key=_place)[:SHOWN])
        cards = cards or '<p class="note">no predictions</p>'
        out.append(f'<h3>{esc(name)} {few}</h3><div class="answers">{cards}</div>')
    return "".join(out)


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
    kind, words = ("", "") if correct is None else ("good", "right") if correct else ("bad", "wrong")
    chip = f'<span class="chip {kind}">{words}</span>' if words else ""
    said = "" if truth is None else f'<p class="truth"><span>truth</span> {esc(shorten(truth, 200))}</p>'
    said += f'<p class="note">{esc(shorten(item["note"], 200))}</p>' if item.get("note") else ""
    bars = _bars(item.get("answers") or [], truth, correct, f"{path}: task {task!r}")
    return (
        f'<article class="card answer"><header><span>{esc(shorten(item.get("id", ""), 48))}</span>{chip}</header>'
        f'<div class="shown">{show(item.get("input"))}</div>{said}{bars}</article>'
    )


def _bars(answers: list, truth: Any, correct: bool | None, where: str) -> str:
    try:
        pairs = [(str(answer), float(p)) for answer, p in answers]
    except (TypeError, ValueError):
        raise UserError(f"{where}: 'answers' must be a list of [answer, probability]: make the file again") from None
    if correct is None and len(pairs) == 1 and pairs[0][1] == 1:  # a statement, no choice among candidates
        return f'<p class="truth"><span>answer</span> {esc(shorten(pairs[0][0], 200))}</p>'
    rows = []
    for i, (answer, p) in enumerate(pairs[:ANSWERS]):
        # A forecast or a number is not simply right or wrong (correct is null): no colour judges it.
        is_true = correct is not None and (answer == str(truth) or (i == 0 and correct is True))
        kind = " ".join(["first"] * (i == 0) + ["true"] * is_true)
        wide = min(max(p, 0.0), 1.0) * 100 if math.isfinite(p) else 0.0
        rows.append(
            f'<li class="{kind}"><span>{esc(shorten(answer, 120))}</span><em>{_percent(p)}</em>'
            f'<i><b style="width:{wide:.1f}%"></b></i></li>'
        )
    more = f'<li class="note">… and {len(pairs) - ANSWERS} more</li>' if len(pairs) > ANSWERS else ""
    return f'<ul class="bars{" open" if correct is None else ""}">{"".join(rows)}{more}</ul>' if rows else ""


def _percent(p: float) -> str:
    if not math.isfinite(p):
        return "?"
    return "<1&nbsp;%".replace("<", "&lt;") if 0 < p < 0.005 else f"{100 * p:.0f}&nbsp;%"
