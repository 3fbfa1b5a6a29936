"""Drawings as inline SVG and HTML strings: they take the page's colours, so they fit light and dark.

Every text that comes from data passes `esc`; numbers are written by `fmt` and `_p`.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

# Mid tones: each is readable on white and on near-black.
COLOURS = (
    "#3b7dd8", "#e8743b", "#2a9d6f", "#d1495b", "#8b5fbf", "#c09213", "#17a2b8", "#d965b0", "#7f943c", "#8a8a9c",
)  # fmt: skip


# control characters, and those that turn the direction of what follows
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def esc(text: object) -> str:
    """Safe in HTML text and in quoted attributes."""
    return escape(HIDDEN.sub(" ", str(text)), quote=True)


def shorten(text: object, most: int) -> str:
    """At most `most` characters, the cut shown by an ellipsis."""
    text = str(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def fmt(value: object) -> str:
    """A number for reading: 0.812, 12.35, 1982, 12,345, 11.4 M, 4.2e-05; an en dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if abs(value) >= 1e6:
        text = f"{value / 1e6:,.1f} M"
    elif isinstance(value, int) or abs(value) >= 1000:
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"  # 1982 is a year as well
    elif abs(value) >= 10:
        text = f"{value:.2f}"
    elif abs(value) >= 0.01 or value == 0:
        text = f"{value:.3f}"
    else:
        text = f"{value:.2g}"
    return text.replace("-", "−")


def colour(i: int, n: int) -> str:
    """The colour of class i of n: a hand-picked set for few, evenly spaced hues for many."""
    return COLOURS[i] if n <= len(COLOURS) else f"hsl({360 * i / n:.0f} 60% 52%)"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers inside [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def png(pixels: object) -> str:
    """[H, W] or [H, W, 1 or 3] numbers in 0..1 → a PNG as a data address."""
    array = np.asarray(pixels, dtype=np.float64)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"an image of shape {array.shape}")
    array = (np.nan_to_num(array).clip(0, 1) * 255).round().astype(np.uint8)
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in array)  # filter 0 before every row

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if array.ndim == 3 else 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def _p(value: float) -> str:
    """A coordinate: one decimal is finer than a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def path(x: Sequence[float], y: Sequence[float]) -> str:
    """The `d` of a polyline; it is broken where a value is not finite."""
    out, pen_down = [], False
    for a, b in zip(x, y, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            out.append(f"{'L' if pen_down else 'M'}{_p(a)} {_p(b)}")
            pen_down = True
        else:
            pen_down = False
    return "".join(out)


def svg(width: int, height: int, body: str, label: str, kind: str = "") -> str:
    """An image that fills its box and keeps its shape; `label` is read out by screen readers."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{esc(label)}">'
        f"<title>{esc(label)}</title>{body}</svg>"
    )


def thinned(x: np.ndarray, y: np.ndarray, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points that keep the peaks: the least and the greatest of every stretch, in order."""
    if len(x) <= most:
        return x, y
    keep: list[int] = []
    for rows in np.array_split(np.arange(len(x)), most // 2):
        keep += sorted({int(rows[y[rows].argmin()]), int(rows[y[rows].argmax()])})
    return x[keep], y[keep]


def smoothed(y: np.ndarray) -> np.ndarray:
    """Mean over a centred window of about a twentieth of the curve, narrower near its ends: no lag, no bias."""
    n = len(y)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(n)
    half = np.minimum(np.minimum(at, n - 1 - at), max(1, n // 40))
    return (total[at + half + 1] - total[at - half]) / (2 * half + 1)


def curve(
    step: Sequence[float], value: Sequence[float], label: str, hue: str, span: tuple[float, float], smooth: bool = True
) -> str:
    """A small line chart: the raw values faint, the smoothed ones strong; values that are not finite left out.

    span: the first and the last step of the axis, shared by the charts of a page.
    """
    x, y = np.asarray(step, dtype=np.float64), np.asarray(value, dtype=np.float64)
    good = np.isfinite(y)
    x, y = x[good], y[good]
    if not len(y):
        return '<p class="note">no finite value</p>'
    width, height, left, right, top, bottom = 300, 170, 40, 8, 8, 22
    strong = smoothed(y) if smooth else y
    # A few wild first losses must not press the rest flat: the picture spans the smoothed curve and 98 % of the rest.
    low = min(float(strong.min()), float(np.quantile(y, 0.01)))
    high = max(float(strong.max()), float(np.quantile(y, 0.99)))
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = (max(0.0, low - pad) if low >= 0 else low - pad), high + pad
    first, last = span if span[1] > span[0] else (span[0], span[0] + 1)

    def px(v: np.ndarray | float):
        return left + (v - first) / (last - first) * (width - left - right)

    def py(v: np.ndarray | float):
        return top + (1 - (np.clip(v, low, high) - low) / (high - low)) * (height - top - bottom)

    body = []
    for t in ticks(low, high):
        body.append(f'<path class="grid" d="M{left} {_p(py(t))}H{width - right}"/>')
        body.append(f'<text x="{left - 5}" y="{_p(py(t) + 3.5)}" text-anchor="end">{_tick(t)}</text>')
    for t in ticks(first, last, 3):
        anchor = "end" if px(t) > width - 24 else "middle"
        body.append(f'<text x="{_p(px(t))}" y="{height - 6}" text-anchor="{anchor}">{_tick(t)}</text>')
    if smooth and len(y) > 2:
        a, b = thinned(x, y)
        body.append(f'<path class="raw" stroke="{hue}" d="{path(px(a), py(b))}"/>')
    a, b = thinned(x, strong, 200)
    body.append(f'<path class="line" stroke="{hue}" d="{path(px(a), py(b))}"/>')
    if len(y) == 1:
        body.append(f'<circle cx="{_p(px(x[0]))}" cy="{_p(py(y[0]))}" r="3" fill="{hue}"/>')
    return svg(width, height, "".join(body), label, "chart")


def _tick(value: float) -> str:
    """As short as a tick can be: 0, 0.5, 200, 1.5k, 3e−4."""
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("-", "−")
    if abs(value) >= 10000:
        return f"{value / 1000:g}k"
    return f"{value:g}".replace("-", "−")


def scatter(
    xy: np.ndarray, group: Sequence[int], hues: Sequence[str], tips: Sequence[str], label: str, size: tuple[int, int]
) -> str:
    """Points [n, 2] coloured by group, each with its tip shown on hover; equal scale on both axes."""
    width, height = size
    radius = 2.6 if len(xy) > 600 else 3.2
    low, high = xy.min(0), xy.max(0)
    span = np.maximum(high - low, 1e-12)
    pad = 10
    scale = min((width - 2 * pad) / span[0], (height - 2 * pad) / span[1])
    middle = (low + high) / 2
    px = (xy[:, 0] - middle[0]) * scale + width / 2
    py = height / 2 - (xy[:, 1] - middle[1]) * scale
    marks: list[str] = []
    # Interleaved, not group after group: the last group must not hide the others.
    for i in np.random.default_rng(0).permutation(len(xy)):
        tip = esc(shorten(tips[i], 60))
        marks.append(f'<circle cx="{_p(px[i])}" cy="{_p(py[i])}" fill="{hues[group[i]]}"><title>{tip}</title></circle>')
    return svg(width, height, f'<g class="dots" style="--r:{radius}px">{"".join(marks)}</g>', label, "map")


def heat(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[tuple[float | None, str] | None]],
    label: str,
    dashed: Sequence[Sequence[bool]] | None = None,
    full: float = 1.0,
) -> str:
    """A table of (value, its tip) by row and column; a value of None is a dash, a cell of None is left empty.

    The further from 0 the deeper, as deep as it gets at `full`; what lies below 0 has another colour.
    """
    size, margin, top = 62, 78, 26
    width, height = margin + size * len(columns), top + size * len(rows)
    middles = [margin + size * j + size / 2 for j in range(len(columns))]
    heads = zip(middles, columns, strict=True)
    body = [f'<text x="{x}" y="{top - 8}" text-anchor="middle">{esc(shorten(n, 11))}</text>' for x, n in heads]
    for i, name in enumerate(rows):
        y = top + size * i
        body.append(f'<text x="{margin - 8}" y="{y + size / 2 + 4}" text-anchor="end">{esc(shorten(name, 11))}</text>')
        for j, cell in enumerate(cells[i]):
            if cell is None:
                continue
            edge = ' stroke-dasharray="5 3"' if dashed is not None and dashed[i][j] else ""
            value = 0.0 if cell[0] is None else float(cell[0])
            kind = "cell" if value >= 0 else "cell below"
            deep = min(1.0, abs(value) / full) if full > 0 else 0.0
            body.append(
                f'<g><title>{esc(cell[1])}</title><rect class="{kind}" x="{margin + size * j + 3}" y="{y + 3}" '
                f'width="{size - 6}" height="{size - 6}" rx="5" fill-opacity="{0.05 + 0.6 * deep:.2f}"{edge}/>'
                f'<text class="number" x="{middles[j]}" y="{y + size / 2 + 4}" text-anchor="middle">'
                f"{fmt(None if cell[0] is None else value)}</text></g>"
            )
    drawing = svg(width, height, "".join(body), label, "heat")
    return f'<div style="max-width:{round(1.2 * width)}px">{drawing}</div>'


def legend(names: Sequence[str], hues: Sequence[str]) -> str:
    items = (f'<li><i style="background:{h}"></i>{esc(shorten(n, 28))}</li>' for n, h in zip(names, hues, strict=True))
    return f'<ul class="legend">{"".join(items)}</ul>'


def scale_bar(
    value: float | None,
    chance: float | None,
    baseline: float | None,
    low: float | None,
    high: float | None,
    higher_is_better: bool,
    verdict: str,
    together: float | None = None,
) -> str:
    """The result between chance and baseline on its own scale, better always to the right."""
    points = {"value": value, "chance": chance, "baseline": baseline, "low": low, "high": high, "together": together}
    at = {
        k: float(v) * (1 if higher_is_better else -1) for k, v in points.items() if v is not None and math.isfinite(v)
    }
    if "value" not in at or len(set(at.values())) < 2:
        return '<div class="scale"></div>'
    least, most = min(at.values()), max(at.values())
    at = {k: 5 + 90 * (v - least) / (most - least) for k, v in at.items()}  # % of the width, with a margin
    start = at.get("chance", 0.0)
    left, wide = min(start, at["value"]), abs(at["value"] - start)
    parts = [f'<b class="fill {verdict}" style="left:{left:.1f}%;width:{wide:.1f}%"></b>']
    if "low" in at and "high" in at:
        a, b = sorted((at["low"], at["high"]))
        parts.append(f'<b class="range" style="left:{a:.1f}%;width:{b - a:.1f}%"></b>')
    parts += [
        f'<b class="tick {k}" style="left:{at[k]:.1f}%"></b>' for k in ("chance", "baseline", "together") if k in at
    ]
    parts.append(f'<b class="dot {verdict}" style="left:{at["value"]:.1f}%"></b>')
    words = ", ".join(f"{k} {fmt(v)}" for k, v in points.items() if v is not None)
    return f'<div class="scale" role="img" aria-label="{esc(words)}" title="{esc(words)}">{"".join(parts)}</div>'
