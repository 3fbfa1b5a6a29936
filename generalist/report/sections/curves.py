"""Learning curves of the report: accuracy over training samples by method, mean and spread over draws."""

from __future__ import annotations

import math
from typing import Any

from generalist.report.figures import colour, esc, fmt, legend, svg, ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 340, 44, 14, 12, 40


def curves_section(tables: dict[str, list[dict[str, Any]]]) -> str:
    """{name: the lines of a tuning.json} -> a chart and a table each."""
    note = (
        "<p class='note'>Accuracy on held-out samples over the number of training samples (logarithmic): mean over the "
        "draws, the bar one standard deviation to each side. A dashed line needs no training sample; the dotted one "
        "is chance.</p>"
    )
    return note + "".join(_table(name, lines) for name, lines in tables.items())


def _table(name: str, lines: list[dict[str, Any]]) -> str:
    methods = list(dict.fromkeys(str(line["method"]) for line in lines))
    hues = [colour(i, len(methods)) for i in range(len(methods))]
    sizes = sorted({int(line["samples"]) for line in lines if line["samples"]})
    heads = "".join(f"<th>{fmt(size)}<small>{_share(lines, size)}</small></th>" for size in sizes)
    rows = []
    for method in methods:
        own = {int(line["samples"]): line for line in lines if line["method"] == method}
        cells = "".join(f"<td>{_cell(own.get(size, own.get(0)))}</td>" for size in sizes or [0])
        rows.append(f"<tr><td>{esc(method)}</td>{cells}</tr>")
    draws = sorted({len(line["draws"]) for line in lines if line["samples"]}) or [1]
    count = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    caption = f"{count} draw{'' if draws == [1] else 's'} a point, {fmt(lines[0]['n_test'])} test samples"
    table = (
        f'<div class="plain"><table><tr><th>method</th>{heads or "<th></th>"}</tr>{"".join(rows)}</table></div>'
        f"<figcaption>{caption}</figcaption>"
    )
    drawing = _chart(name, lines, methods, hues, sizes)
    return f'<h3>{esc(name)}</h3><figure class="card">{drawing}{legend(methods, hues)}{table}</figure>'


def _share(lines: list[dict[str, Any]], size: int) -> str:
    found = next((line for line in lines if line["samples"] == size), {})
    if found.get("shots"):
        return f"{found['shots']} a class"
    return f"{100 * found['fraction']:g} %" if found.get("fraction") else "all"


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return "–"
    spread = f"<small>± {line['std']:.3f}</small>" if len(line["draws"]) > 1 else ""
    return f"{line['accuracy']:.3f}{spread}"


def _chart(name: str, lines: list[dict[str, Any]], methods: list[str], hues: list[str], sizes: list[int]) -> str:
    bounds = [line["accuracy"] + side * line["std"] for line in lines for side in (-1, 1)]
    chance = 1 / lines[0]["classes"] if lines[0].get("classes") else None
    bounds += [] if chance is None else [chance]
    pad = 0.05 * (max(bounds) - min(bounds)) or 0.05
    low, high = max(0.0, min(bounds) - pad), min(1.0, max(bounds) + pad)
    first, last = (math.log10(sizes[0]), math.log10(sizes[-1])) if sizes else (0.0, 1.0)
    if first == last:
        first, last = first - 0.5, last + 0.5

    def px(samples: float) -> float:
        inner = WIDTH - LEFT - RIGHT - 40  # room beside the first and the last bar
        return LEFT + 20 + (math.log10(samples) - first) / (last - first) * inner

    def py(value: float) -> float:
        return TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM)

    body = []
    for tick in ticks(low, high, 5):
        body.append(f'<path class="grid" d="M{LEFT} {py(tick):.1f}H{WIDTH - RIGHT}"/>')
        body.append(f'<text x="{LEFT - 6}" y="{py(tick) + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for size in sizes:
        at = f'x="{px(size):.1f}" text-anchor="middle"'
        body.append(f'<text {at} y="{HEIGHT - 22}">{fmt(size)}</text>')
        body.append(f'<text {at} y="{HEIGHT - 9}">{esc(_share(lines, size))}</text>')
    if chance is not None:
        body.append(f'<path class="line chanceline" d="M{LEFT} {py(chance):.1f}H{WIDTH - RIGHT}"/>')
    for i, (method, hue) in enumerate(zip(methods, hues, strict=True)):
        own = sorted((line for line in lines if line["method"] == method), key=lambda line: line["samples"])
        # methods beside each other, so that their bars do not lie on one another
        shift = 5 * (i - (len(methods) - 1) / 2)
        points = [(px(line["samples"]) + shift, py(line["accuracy"]), line) for line in own if line["samples"]]
        for line in own:
            if not line["samples"]:
                d = f"M{LEFT} {py(line['accuracy']):.1f}H{WIDTH - RIGHT}"
                body.append(f'<path class="line" stroke="{hue}" stroke-dasharray="6 4" d="{d}"/>')
        d = "".join(f"{'L' if k else 'M'}{x:.1f} {y:.1f}" for k, (x, y, _) in enumerate(points))
        body.append(f'<path class="line" stroke="{hue}" d="{d}"/>' if points else "")
        for x, y, line in points:
            top, bottom = py(line["accuracy"] + line["std"]), py(line["accuracy"] - line["std"])
            tip = f"{method}, {line['samples']} samples: {line['accuracy']:.3f} ± {line['std']:.3f}"
            ends = f"M{x - 4:.1f} {top:.1f}h8M{x - 4:.1f} {bottom:.1f}h8M{x:.1f} {top:.1f}V{bottom:.1f}"
            body.append(f'<path stroke="{hue}" d="{ends}"/>' if line["std"] else "")
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{hue}"><title>{esc(tip)}</title></circle>')
    return svg(WIDTH, HEIGHT, "".join(body), f"accuracy on {name} by training samples", "chart")
