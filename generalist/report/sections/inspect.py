"""The report's sections on what `generalist inspect` found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generalist.report.figures import esc, fmt, heat
from generalist.report.sections.errors import errors_section, similar_section

WORDS = {
    "nll rise": "by how many nats the mean −log p of the right answer rises",
    "drop": "how much of the task's metric is lost",
    "map": "mean attention distance on grids, in cells",
    "line": "mean attention distance on texts and series, in tokens",
}


def heads_section(found: dict[str, Any]) -> str:
    """Layers by heads: what silencing each costs, and how far each looks."""
    lines = {(line["layer"], line["head"]): line for line in found["heads"]}
    layers = sorted({layer for layer, _ in lines}, key=int)
    heads = sorted({head for _, head in lines})
    drawings = []
    for key, words in WORDS.items():
        values = [line[key] for line in lines.values() if line.get(key) is not None]
        if not values:
            continue
        cells = [[_cell(lines.get((layer, head)), key) for head in heads] for layer in layers]
        drawing = heat(
            [f"layer {layer}" for layer in layers],
            [f"head {head}" for head in heads],
            cells,
            f"{key} by layer and head",
            full=max(abs(value) for value in values),
        )
        drawings.append(f"<figure class='card'><h4>{esc(key)}</h4>{drawing}<figcaption>{words}</figcaption></figure>")
    note = (
        f"Task {esc(found['task'])}, {esc(found['metric'])} {fmt(found['value'])} over {fmt(found['n'])} records: each "
        "attention head's output is set to zero in turn, for inputs and candidates alike."
    )
    return f'<p class="note">{note}</p><div class="grid2">{"".join(drawings)}</div>'


def _cell(line: dict[str, Any] | None, key: str) -> tuple[float, str] | None:
    if line is None or line.get(key) is None:
        return None
    return line[key], f"layer {line['layer']}, head {line['head']}: {key} {line[key]:.4f}"


INSPECTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "heads": heads_section,
    "errors": errors_section,
    "similar": similar_section,
}
