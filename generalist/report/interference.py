"""The report's section on interference between tasks."""

from __future__ import annotations

from typing import Any

from generalist.report.figures import esc, svg


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
    maps = "".join(_heat(found["tasks"], found[kind], kind) for kind in ("cosine", "interference"))
    return f'{note}<div class="rows">{table}</div><div class="answers">{maps}</div>'


def _heat(tasks: list[str], values: list[list[float | None]], title: str) -> str:
    cell, margin = 44, 96
    side = margin + cell * len(tasks)
    body = [f'<text x="4" y="14">{esc(title)}</text>']
    for i, task in enumerate(tasks):
        middle = margin + cell * i + cell / 2
        body.append(f'<text x="{margin - 6}" y="{middle + 4}" text-anchor="end" font-size="11">{esc(task[:14])}</text>')
        turn = f"rotate(-45 {middle} {margin - 8})"
        body.append(f'<text x="{middle}" y="{margin - 8}" font-size="11" transform="{turn}">{esc(task[:14])}</text>')
        for j, value in enumerate(values[i]):
            x, y = margin + cell * j, margin + cell * i
            shown = 0.0 if value is None else max(-1.0, min(1.0, value))
            colour = "#2a7f62" if shown >= 0 else "#b3432b"
            body.append(
                f'<rect x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" fill="{colour}" '
                f'opacity="{abs(shown):.2f}"/>'
            )
            words = "–" if value is None else f"{value:.2f}"
            body.append(f'<text x="{x + cell / 2 - 1}" y="{y + 26}" text-anchor="middle" font-size="11">{words}</text>')
    return svg(side, side, "".join(body), f"{title} of the tasks' gradients", "in")
