"""The report's sections on what `generalist inspect` found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generalist.report.figures import esc, fmt, heat
from generalist.report.sections.concepts import concepts_section
from generalist.report.sections.errors import errors_section, similar_section
from generalist.report.sections.heats import heat_cards

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
    drawings += [_rings(found["heads"], kind) for kind in ("map", "line") if kind in found["heads"][0].get("rings", {})]
    note = (
        f"Task {esc(found['task'])}, {esc(found['metric'])} {fmt(found['value'])} over {fmt(found['n'])} records: each "
        "attention head's output is set to zero in turn, for inputs and candidates alike."
    )
    return f'<p class="note">{note}</p><div class="grid2">{"".join(drawings)}</div>'


def _rings(heads: list[dict[str, Any]], kind: str) -> str:
    """Heads by rings: where each one's attention goes."""
    ordered = sorted(heads, key=lambda line: (int(line["layer"]), line["head"]))
    last = len(ordered[0]["rings"][kind]) - 2
    names = [*(str(k) for k in range(last)), f"{last} +", "elsewhere"]
    rows = []
    for line in ordered:
        cells = "".join(
            f'<td class="warmed-cell" style="--d:{round(100 * share)}%" title="{share:.3f}">{share:.2f}</td>'
            for share in line["rings"][kind]
        )
        rows.append(f"<tr><td>{line['layer']}.{line['head']} {esc(line['pattern'][kind])}</td>{cells}</tr>")
    head = "".join(f"<th>{esc(name)}</th>" for name in names)
    where = "cells away on grids" if kind == "map" else "tokens away on texts and series"
    table = f"<table><tr><th>layer.head</th>{head}</tr>{''.join(rows)}</table>"
    words = f"share of attention by {where}; elsewhere: other spans, the question"
    title = f"where attention goes on {'grids' if kind == 'map' else 'lines'}"
    return f"<figure class='card plain rings'><h4>{title}</h4>{table}<figcaption>{words}</figcaption></figure>"


def _cell(line: dict[str, Any] | None, key: str) -> tuple[float, str] | None:
    if line is None or line.get(key) is None:
        return None
    return line[key], f"layer {line['layer']}, head {line['head']}: {key} {line[key]:.4f}"


def explain_section(found: dict[str, Any]) -> str:
    """How faithful the explanations are, and some of them over their inputs."""
    note = (
        f"Task {esc(found['task'])}: what {fmt(found['n'])} answers rest on. T-TAME: a mask head learnt on "
        f"{fmt(found['learnt'])} other records, without labels, from {esc(', '.join(found['layers']))}; "
        "rollout: attention multiplied through the layers. AD, average drop of the answer's probability when only the "
        "mask's largest tokens are shown, in per cent, less is better; IC, per cent of the records where it rises. "
        f"Random masks have the same values at other tokens. {esc(found.get('lacking', ''))}"
    )
    shares = list(next(iter(found["measures"].values())))
    head = "".join(f"<th>AD top {esc(s)}</th><th>IC top {esc(s)}</th>" for s in shares)
    rows = "".join(
        f"<tr><td>{esc(name)}</td>"
        + "".join(f"<td>{own[s]['AD']:.1f}</td><td>{own[s]['IC']:.1f}</td>" for s in shares)
        + "</tr>"
        for name, own in found["measures"].items()
    )
    table = f'<div class="card plain"><table><tr><th></th>{head}</tr>{rows}</table></div>'
    return f'<p class="note">{note}</p>{table}{heat_cards(found["samples"], lambda given, name: 1.0)}'


def robust_section(found: dict[str, Any]) -> str:
    """What one disturbed token does, plain and at a temperature, and where."""
    value = f", {esc(found['metric'])} {fmt(found['value'])}" if "value" in found else ""
    note = (
        f"Task {esc(found['task'])}{value}: one token of {fmt(found['n'])} records ({esc(found['of'])}) is disturbed "
        f"at a time, {fmt(found['tried'])} tries. Natural: noise in its content; adversarial: the content that costs "
        "the answer most. Fooled: share of the answers that change; rise: of −log p of the answer, in nats."
    )
    lines = [("T = 1", found, "")]
    if "temperature" in found:
        own = found["temperature"]
        worth = f", {found['metric']} {fmt(own['value'])}" if "value" in own else ""
        lines.append((f"T = {own['T']:g}", own, worth))
    rows = "".join(
        f"<tr><td>attention at {esc(name)}{esc(worth)}</td>"
        + "".join(f"<td>{own[k]['fooled']:.3f}</td><td>{fmt(own[k]['rise'])}</td>" for k in ("natural", "adversarial"))
        + "</tr>"
        for name, own, worth in lines
    )
    head = "".join(f"<th>{k}: fooled</th><th>rise</th>" for k in ("natural", "adversarial"))
    table = f'<div class="card plain"><table><tr><th></th>{head}</tr>{rows}</table></div>'
    return f'<p class="note">{note}</p>{table}{heat_cards(found["samples"], _largest)}'


def _largest(given: dict[str, Any], name: str) -> float:
    """The largest rise by any method, so that methods compare."""
    return max([v for own in given["values"].values() for v in own if v is not None] + [1e-9])


def paths_section(found: dict[str, Any]) -> str:
    """What every residual branch adds: its share, and what is lost without it."""
    lines = {tuple(line["path"].rsplit(".", 1)): line for line in found["paths"] if "." in line["path"]}
    start = next(line for line in found["paths"] if "." not in line["path"])
    layers = list(dict.fromkeys(layer for layer, _ in lines))
    drawings = []
    for key, words in (
        ("share", "of what is delivered at the question; all paths sum to 1"),
        ("nll rise", "by how many nats the mean −log p of the right answer rises without the path"),
        ("drop", "how much of the task's metric is lost without it"),
    ):
        if key not in start:
            continue
        cells = [[(start[key], f"embedded: {key} {start[key]:.4f}"), None]]
        for layer in layers:
            own = [lines.get((layer, part)) for part in ("mixer", "mlp")]
            cells.append([one and (one[key], f"{one['path']}: {key} {one[key]:.4f}") for one in own])
        full = max(abs(line[key]) for line in found["paths"])
        drawing = heat(["embedded", *layers], ["mixer", "mlp"], cells, f"{key} by layer and branch", full=full)
        drawings.append(f"<figure class='card'><h4>{esc(key)}</h4>{drawing}<figcaption>{words}</figcaption></figure>")
    note = (
        f"Task {esc(found['task'])}, {esc(found['metric'])} {fmt(found['value'])} over {fmt(found['n'])} records: the "
        "encoder delivers the sum of the embedded tokens and of what every branch adds; each is taken out in turn, for "
        "inputs and candidates alike."
    )
    return f'<p class="note">{note}</p><div class="grid2">{"".join(drawings)}</div>'


def keep_section(found: dict[str, Any]) -> str:
    """How many tokens go on, and which."""
    steps = ", ".join(f"{100 * line['kept']:.0f} % behind {line['layer']}" for line in found["steps"])
    note = f"Task {esc(found['task'])}: of the tokens of {fmt(found['n'])} inputs go on {esc(steps)}; warm: furthest."
    return f'<p class="note">{note}</p>{heat_cards(found["samples"], lambda given, name: 1.0)}'


INSPECTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "heads": heads_section,
    "errors": errors_section,
    "similar": similar_section,
    "explain": explain_section,
    "robust": robust_section,
    "concepts": concepts_section,
    "paths": paths_section,
    "keep": keep_section,
}
