"""The report's section on interference between tasks."""

from __future__ import annotations

from typing import Any

from generalist.report.figures import esc, fmt, heat


def interference_section(found: dict[str, Any]) -> str:
    """The report's drawing: a table of gradient norms, and the two matrices as heat maps."""
    rows = "".join(
        f"<tr><th>{esc(task)}</th><td>{norm:.3g}</td><td>{count}</td></tr>"
        for task, norm, count in zip(found["tasks"], found["norm"], found["samples"], strict=True)
    )
    table = f"<table><tr><th>task</th><th>gradient norm</th><th>gradients</th></tr>{rows}</table>"
    note = (
        '<p class="note">Last gradients of the run on the second feed-forward matrix of three layers. Left: mean '
        "cosine of two tasks' gradients. Right: what a unit step on the column's task does to the row's loss, as a "
        "share of what a step on its own task does; below 0 it interferes.</p>"
    )
    maps = "".join(_map(found["tasks"], found[kind], kind) for kind in ("cosine", "interference"))
    return f'{note}<div class="rows">{table}</div><div class="answers">{maps}</div>'


def _map(tasks: list[str], values: list[list[float | None]], title: str) -> str:
    cells = [
        [(value, f"{b} on {a}: {fmt(value)}") for b, value in zip(tasks, row, strict=True)]
        for a, row in zip(tasks, values, strict=True)
    ]
    drawing = heat(tasks, tasks, cells, f"{title} of the tasks' gradients")
    return f"<figure><h4>{esc(title)}</h4>{drawing}</figure>"
