"""How the input of a prediction is shown: one drawing a kind, and text for a kind not known here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from generalist.report.figures import esc, fmt, path, png, shorten, svg

WIDTH, HEIGHT = 300, 130
GOLDEN = 137.5  # degrees between the colours of two names: any few of them differ
CROWD = 6  # objects of a picture that still have their names written into it


def show(given: Any) -> str:
    """HTML of an `input` entry of predictions.json; what cannot be drawn is shown as text."""
    kind = given.get("kind") if isinstance(given, dict) else None
    draw = DRAWINGS.get(kind) if isinstance(kind, str) else None
    if draw is not None:
        try:
            return draw(given)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            pass  # the shape of the data is not the one this kind promises: its text still tells what it is
    return f'<pre class="in">{esc(shorten(json.dumps(given, ensure_ascii=False, default=str), 400))}</pre>'


def _image(given: dict) -> str:
    side = np.asarray(given["pixels"]).shape[:2]
    note = f"image, {side[1]} × {side[0]} pixels"
    if given.get("objects") is not None:
        return _objects(given, side[1], side[0], note) + _caption(given.get("text"))
    return f'<img class="in pixels" alt="{note}" src="{png(given["pixels"])}">' + _caption(given.get("text"))


def _objects(given: dict, wide: int, high: int, note: str) -> str:
    """A picture with boxes: "objects" is a list of {"name", "p", "box" [left, top, width, height] as fractions}, maybe
    "kind", the number of the name (its colour in every picture), and, of masks, "runs" [row, first, length] in a "grid"
    [rows, columns]. A crowded picture tells its names below it alone."""
    scale = WIDTH / wide
    width, height = WIDTH, round(high * scale)
    names = sorted({str(o["name"]) for o in given["objects"]})
    numbers = {str(o["name"]): int(o.get("kind", names.index(str(o["name"])))) for o in given["objects"]}
    colours = {name: f"hsl({round(GOLDEN * number) % 360} 75% 38%)" for name, number in numbers.items()}
    body, labels = [f'<image href="{png(given["pixels"])}" width="{width}" height="{height}"/>'], []
    for thing in reversed(given["objects"]):  # the likeliest on top
        name, p = str(thing["name"]), f"{float(thing['p']):.2f}"
        left, top, w, h = (float(v) * s for v, s in zip(thing["box"], (width, height) * 2, strict=True))
        if thing.get("runs"):
            rows, columns = thing["grid"]
            body.append(_mask(thing["runs"], height / rows, width / columns, colours[name]))
        body.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}" fill="none" '
            f'stroke="{colours[name]}" stroke-width="1.5"><title>{esc(f"{name} {p}")}</title></rect>'
        )
        told = p.lstrip("0") if len(given["objects"]) > CROWD else f"{name} {p}"
        long = 3 + 4.6 * len(told)
        x, y = min(max(left, 0), width - long), max(top - 1, 9)
        labels.append(
            f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="{long:.1f}" height="10" fill="{colours[name]}"/>'
            f'<text x="{x + 2:.1f}" y="{y - 1.2:.1f}" style="fill:#fff;font-size:8px">{esc(told)}</text>'
        )
    counts = {name: sum(str(o["name"]) == name for o in given["objects"]) for name in names}
    legend = "".join(
        f'<span><i style="background:{colours[n]}"></i>{esc(n)} × {count}</span>' for n, count in counts.items()
    )
    legend = f'<p class="legend">{legend}</p>' if legend else ""
    return svg(width, height, "".join(body + labels), note, "in") + legend


def _mask(runs: list, high: float, wide: float, colour: str) -> str:
    """Runs of True as one path; high, wide: pixels a cell of their grid."""
    parts = (f"M{c * wide:.1f} {r * high:.1f}h{n * wide:.1f}v{high:.1f}h-{n * wide:.1f}z" for r, c, n in runs)
    return f'<path d="{"".join(parts)}" fill="{colour}" fill-opacity=".45"/>'


def _text(given: dict) -> str:
    return f'<blockquote class="in">{esc(shorten(given["text"], 700))}</blockquote>'


def _table(given: dict) -> str:
    rows = [(k, fmt(v)) for k, v in given["row"].items()]
    cells = "".join(f"<tr><th>{esc(shorten(k, 40))}</th><td>{esc(shorten(v, 60))}</td></tr>" for k, v in rows[:16])
    more = f'<tr><td colspan="2">… and {len(rows) - 16} more</td></tr>' if len(rows) > 16 else ""
    return f'<div class="in rows"><table>{cells}{more}</table></div>'


def _series(given: dict) -> str:
    past, parts = (
        _numbers(given["past"]),
        {k: _numbers(given.get(k) or []) for k in ("future", "low", "median", "high")},
    )
    if not len(past):
        raise ValueError("no past")
    total = len(past) + max(len(v) for v in parts.values())
    every = np.concatenate([past, *parts.values()])
    every = every[np.isfinite(every)]
    least, most = float(every.min()), float(every.max())
    span = (most - least) or 1.0

    def px(i: np.ndarray):
        return 6 + i / max(total - 1, 1) * (WIDTH - 12)

    def py(v: np.ndarray):
        return 8 + (1 - (v - least) / span) * (HEIGHT - 16)

    ahead = len(past) - 1 + np.arange(1 + max(len(v) for v in parts.values()))
    joined = {k: np.concatenate([past[-1:], v]) for k, v in parts.items() if len(v)}  # drawn on from the last value
    body = []
    if "low" in joined and "high" in joined and len(joined["low"]) == len(joined["high"]):
        n = len(joined["low"])
        x = px(np.concatenate([ahead[:n], ahead[:n][::-1]]))
        body.append(f'<path class="band" d="{path(x, py(np.concatenate([joined["high"], joined["low"][::-1]])))}Z"/>')
    body.append(f'<path class="now" d="M{float(px(np.array(len(past) - 1))):.1f} 4V{HEIGHT - 4}"/>')
    body.append(f'<path class="past" d="{path(px(np.arange(len(past))), py(past))}"/>')
    for key in ("future", "median"):
        if key in joined:
            body.append(f'<path class="{key}" d="{path(px(ahead[: len(joined[key])]), py(joined[key]))}"/>')
    items = (
        ("past", "past", True),
        ("future", "what came", "future" in joined),
        ("median", "median", "median" in joined),
    )
    key = "".join(f'<li><i class="{k}"></i>{words}</li>' for k, words, drawn in items if drawn)
    key += '<li><i class="band"></i>range</li>' if "low" in joined and "high" in joined else ""
    return svg(WIDTH, HEIGHT, "".join(body), "series: past, future and forecast", "in series") + (
        f'<ul class="legend key">{key}</ul>'
    )


def _points(given: dict) -> str:
    xyz = np.asarray(given["xyz"], dtype=np.float64)
    if xyz.ndim != 2 or xyz.shape[1] < 3 or not np.isfinite(xyz[:, :3]).all():
        raise ValueError("not [n, 3] finite numbers")
    xyz = xyz[:: math.ceil(len(xyz) / 700), :3]
    xyz = xyz - (xyz.min(0) + xyz.max(0)) / 2
    turn, lean = math.radians(35), math.radians(20)  # a view from above the corner; z is up
    x = xyz[:, 0] * math.cos(turn) - xyz[:, 1] * math.sin(turn)
    depth = xyz[:, 0] * math.sin(turn) + xyz[:, 1] * math.cos(turn)
    y = xyz[:, 2] * math.cos(lean) + depth * math.sin(lean)
    side = 170
    scale = (side - 16) / max(np.ptp(x), np.ptp(y), 1e-12)
    px, py = side / 2 + (x - (x.max() + x.min()) / 2) * scale, side / 2 - (y - (y.max() + y.min()) / 2) * scale
    near = 1 - (depth - depth.min()) / max(np.ptp(depth), 1e-12)  # 1 at the viewer
    order = np.argsort(near)
    dots = "".join(
        f'<circle cx="{px[i]:.1f}" cy="{py[i]:.1f}" r="{1 + near[i]:.1f}" opacity="{0.3 + 0.7 * near[i]:.2f}"/>'
        for i in order
    )
    return svg(side, side, f'<g class="cloud">{dots}</g>', f"{len(given['xyz'])} points", "in cloud")


def _audio(given: dict) -> str:
    wave = np.nan_to_num(_numbers(given["wave"]))
    if not len(wave):
        raise ValueError("no samples")
    peak = float(np.abs(wave).max()) or 1.0
    stretches = np.array_split(wave / peak, min(len(wave), 240))
    high, low = np.array([s.max() for s in stretches]), np.array([s.min() for s in stretches])
    middle, reach = HEIGHT / 2, HEIGHT / 2 - 8
    x = 6 + np.arange(len(stretches)) / max(len(stretches) - 1, 1) * (WIDTH - 12)
    upper, lower = middle - reach * high - 0.4, middle - reach * low + 0.4  # silence keeps a hair line
    outline = path([*x, *x[::-1]], [*upper, *lower[::-1]])
    rate = float(given.get("rate") or 0)
    note = f"{len(wave) / rate:.2f} s at {rate:,.0f} Hz" if rate > 0 else f"{len(wave):,} samples"
    return svg(WIDTH, HEIGHT, f'<path class="wave" d="{outline}Z"/>', f"sound, {note}", "in audio") + _caption(note)


def _numbers(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"a list of numbers was expected, not {array.ndim} dimensions")
    return array


def _caption(text: Any) -> str:
    return f'<p class="note">{esc(shorten(text, 300))}</p>' if text else ""


DRAWINGS: dict[str, Callable[[dict], str]] = {
    "image": _image,
    "text": _text,
    "series": _series,
    "points": _points,
    "audio": _audio,
    "table": _table,
}
