"""Sections of the report on evaluations: calibration, retrieval between modalities, leakage, and other data."""

from __future__ import annotations

from typing import Any

from generalist.evaluate.leakage import SHOWN
from generalist.report.figures import esc, fmt, heat, shorten, svg
from generalist.report.page import render

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 240, 44, 12, 10, 34


def calibration_section(tasks: dict[str, dict[str, Any]]) -> str:
    """A reliability diagram for every task whose answers are named."""
    panels = [
        (name, _reliability(line["reliability"], name), _value(line, "ECE"), _interval(line, "ECE"))
        for name, line in tasks.items()
        if line.get("reliability")
    ]
    return render("calibration.html", panels=panels) if panels else ""


def _value(line: dict[str, Any], name: str) -> float | None:
    return (line.get("measures") or {}).get(name, {}).get("value")


def _interval(line: dict[str, Any], name: str) -> str:
    return _bounds((line.get("measures") or {}).get(name, {}), "")


def _reliability(bins: list[dict[str, float]], name: str) -> str:
    total = sum(b["count"] for b in bins)

    def px(value: float) -> float:
        return LEFT + value * (WIDTH - LEFT - RIGHT)

    def py(value: float) -> float:
        return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)

    body = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        body.append(f'<path class="grid" d="M{LEFT} {py(tick):.1f}H{WIDTH - RIGHT}"/>')
        body.append(f'<text x="{LEFT - 5}" y="{py(tick) + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
        body.append(f'<text x="{px(tick):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{tick:g}</text>')
    body.append(f'<path class="line chanceline" d="M{px(0)} {py(0)}L{px(1)} {py(1)}"/>')
    for b in bins:
        tip = f"{b['count']} answers, confidence {b['confidence']:.3f}, right {b['accuracy']:.3f}"
        radius = 2.5 + 7 * (b["count"] / total) ** 0.5
        body.append(
            f'<circle cx="{px(b["confidence"]):.1f}" cy="{py(b["accuracy"]):.1f}" r="{radius:.1f}" '
            f'class="wave" opacity=".75"><title>{esc(tip)}</title></circle>'
        )
    body.append(f'<text x="{px(0.5):.1f}" y="{HEIGHT - 4}" text-anchor="middle">confidence</text>')
    turn = f"rotate(-90 10 {py(0.5):.1f})"
    body.append(f'<text x="10" y="{py(0.5):.1f}" text-anchor="middle" transform="{turn}">right</text>')
    return svg(WIDTH, HEIGHT, "".join(body), f"reliability of {name}", "chart")


def matrix_section(found: dict[str, Any]) -> str:
    """R@1 between every two modalities as a heat map; pairs never trained together have a dashed border."""
    names = found["modalities"]
    cell = {(pair["from"], pair["to"]): pair for pair in found["pairs"]}
    values = [[_shown(cell.get((a, b))) for b in names] for a in names]
    dashed = [[cell.get((a, b), {}).get("trained") is False for b in names] for a in names]
    drawing = heat(names, names, values, "retrieval from the row's modality to the column's, R@1", dashed)
    chances = [pair["chance"] for pair in found["pairs"]]
    chance = fmt(min(chances)) + ("" if max(chances) == min(chances) else f" to {fmt(max(chances))}")
    words = f"R@1 over {fmt(found['n'])} records{esc(_about(found))}; chance {chance}."
    if any(pair["trained"] is False for pair in found["pairs"]):
        words += " Dashed: no task trained the two together."
    if any(pair["trained"] is None for pair in found["pairs"]):
        words += " The model's folder does not say which pairs were trained together."
    clear = [
        f"{pair['from']} → {pair['to']}"
        for pair in found["pairs"]
        if pair["trained"] is False and (pair["recall@1"]["low"] or 0) > pair["chance"]
    ]
    if clear:
        words += f" Never trained together and still above chance with the whole interval: {esc(', '.join(clear))}."
    return f'<figure class="card">{drawing}<figcaption>{words}</figcaption></figure>'


def _about(found: dict[str, Any]) -> str:
    return f" ({shorten(found['about'], 80)})" if found.get("about") else ""


def _shown(pair: dict[str, Any] | None) -> tuple[float, str] | None:
    if pair is None:
        return None
    one = pair["recall@1"]
    bounds = "" if one["low"] is None else f" ({one['low']:.3f} – {one['high']:.3f})"
    return one["value"], f"{pair['from']} → {pair['to']}: {one['value']:.3f}{bounds}, chance {pair['chance']:.3f}"


def leakage_section(tasks: dict[str, dict[str, Any]]) -> str:
    """Evaluation samples that were trained on, and the results without them."""
    lines = [
        {
            "name": name,
            "found": line["leakage"],
            "metric": line["metric"],
            "value": _value(line, line["metric"]),
            "without": _value(line["leakage"], line["metric"]),
        }
        for name, line in tasks.items()
        if line.get("leakage")
    ]
    return render("leakage.html", lines=lines, shown=SHOWN) if lines else ""


def data_section(results: dict[str, dict[str, Any]]) -> str:
    """Evaluations on other data: every measure with its interval, chance below."""
    cards = []
    for name, result in results.items():
        rows = [
            (measure, one["value"], _bounds(one), _chance(result["chance"], measure))
            for measure, one in result["measures"].items()
        ]
        chance = ", ".join(f"{k} {fmt(v)}" for k, v in result["chance"].items() if k not in result["measures"])
        among = f", {fmt(result['classes'])} candidates" if "classes" in result else ""
        words = f"{fmt(result['n'])} samples{among}{_about(result)}" + (f"; chance: {chance}" if chance else "")
        cards.append({"name": name, "rows": rows, "words": words})
    return render("data.html", cards=cards)


def _chance(chance: dict[str, float], measure: str) -> str:
    """What guessing gives for a measure: said by the result, or for one right of K candidates k guesses in K."""
    if measure in chance:
        return fmt(chance[measure])
    guesses = "1" if measure == "accuracy" else measure.removeprefix("recall@")
    if "uniform" not in chance or not guesses.isdecimal():
        return "–"
    return fmt(min(1.0, int(guesses) * chance["uniform"]))


def _bounds(one: dict[str, Any], none: str = "–") -> str:
    return none if one.get("low") is None else f"{fmt(one['low'])} – {fmt(one['high'])}"
