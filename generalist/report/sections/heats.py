"""Values of tokens drawn over the input in its own form: a picture, a spectrogram, a series, words, a row's cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from generalist.report.figures import esc, fmt, path, png, shorten, svg

WARM = np.array([1.0, 0.42, 0.08])  # readable on dark and light pictures alike
WIDTH, HEIGHT = 300, 110
LISTED = 16  # cells of a row, or tokens without a form
SIDE = 96  # pixels that the longer side of a picture has at least


def drawn(given: dict[str, Any], name: str, full: float = 1.0) -> str:
    """HTML of one method's values over one input. full: the value that is as warm as it gets; below 0 is cold."""
    values = np.array([np.nan if v is None else v / full if full > 0 else 0.0 for v in given["values"][name]], float)
    draw = DRAWINGS.get(str(given["input"].get("kind")))
    if given["words"]:
        draw = _cells if given["input"].get("kind") == "table" else _words
    return _bars(given, values) if draw is None or not len(values) else draw(given, values)


def _picture(given: dict[str, Any], values: np.ndarray) -> str:
    """Each cell's warmth over its part of the picture."""
    pixels, shape = np.asarray(given["input"]["pixels"], float), given["shape"]
    if len(shape) < 2:
        return _bars(given, values)
    heat = np.nan_to_num(values).reshape(-1, *shape[-2:]).mean(0)
    if given["input"]["kind"] == "spectrogram":  # time by filters, the lowest first; drawn with time to the right
        heat = heat.T[::-1]
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else np.repeat(pixels, 3 // pixels.shape[2], -1)
    times = max(1, -(-SIDE // max(pixels.shape[:2])))
    pixels = pixels.repeat(times, 0).repeat(times, 1).clip(0, 1)
    rows, columns = (np.arange(side) * n // side for side, n in zip(pixels.shape[:2], heat.shape, strict=True))
    alpha = (0.75 * heat[rows][:, columns].clip(0, 1))[..., None]
    note = f"{shape[-2]} × {shape[-1]} tokens"
    return f'<img class="in heated" alt="{note}" src="{png(pixels * (1 - alpha) + WARM * alpha)}">'


def _series(given: dict[str, Any], values: np.ndarray) -> str:
    """Bands of warmth behind the line; the newest value ends the last token."""
    past = np.asarray(given["input"]["past"], float)
    seen = past[np.isfinite(past)]
    low, span = float(seen.min()), float(np.ptp(seen)) or 1.0
    wide = (WIDTH - 12) / len(values)
    bands = "".join(
        f'<rect class="warm" x="{6 + i * wide:.1f}" y="2" width="{wide:.1f}" height="{HEIGHT - 4}" '
        f'fill-opacity="{0.6 * min(max(v, 0), 1):.2f}"><title>token {i + 1}: {v:.3f}</title></rect>'
        for i, v in enumerate(np.nan_to_num(values))
    )
    x = 6 + np.arange(len(past)) / max(len(past) - 1, 1) * (WIDTH - 12)
    y = 8 + (1 - (past - low) / span) * (HEIGHT - 16)
    return svg(
        WIDTH,
        HEIGHT,
        f'{bands}<path class="past" d="{path(x.tolist(), y.tolist())}"/>',
        "a series and its tokens",
        "in series",
    )


def _words(given: dict[str, Any], values: np.ndarray) -> str:
    words = "".join(
        f'<span style="--d:{_percent(v)}%" title="{v:.3f}">{esc(word) or "·"}</span>'
        for word, v in zip(given["words"], np.nan_to_num(values), strict=True)
    )
    return f'<p class="in warmed">{words}</p>'


def _cells(given: dict[str, Any], values: np.ndarray) -> str:
    """A row's cells, the warmest first."""
    row = given["input"]["row"]
    told = [(name, row.get(name, ""), v) for name, v in zip(given["words"], np.nan_to_num(values), strict=True)]
    return _table([(shorten(name, 30), shorten(fmt(cell), 24), v) for name, cell, v in told])


def _bars(given: dict[str, Any], values: np.ndarray) -> str:
    return _table([(f"token {i + 1} of {len(values)}", "", v) for i, v in enumerate(np.nan_to_num(values))])


def _table(told: list[tuple[str, str, float]]) -> str:
    ranked = sorted(told, key=lambda line: -line[2])
    rows = "".join(
        f"<tr><th>{esc(name)}</th><td>{esc(cell)}</td>"
        f'<td class="warmth" style="--w:{_percent(v) / 100:g}"><i></i>{v:.2f}</td></tr>'
        for name, cell, v in ranked[:LISTED]
    )
    more = f'<tr><td colspan="3">… and {len(ranked) - LISTED} more</td></tr>' if len(ranked) > LISTED else ""
    return f'<div class="in rows"><table>{rows}{more}</table></div>'


def _percent(value: float) -> int:
    return round(100 * min(max(value, 0.0), 1.0))


def heat_cards(samples: list[dict[str, Any]], full: Callable[[dict[str, Any], str], float]) -> str:
    """A card a record: its answer, and every method's values over each of its inputs. full: of a heat and a method."""
    cards = []
    for one in samples:
        said = f"<b>{esc(shorten(one['answer'], 60))}</b>, " if one["answer"] else ""
        parts = []
        for given in one["heats"]:
            names = "".join(
                f"<figure>{drawn(given, name, full(given, name))}<figcaption>{esc(name)}</figcaption></figure>"
                for name in given["values"]
            )
            parts.append(f'<div class="heats">{names}</div>')
        cards.append(
            f'<article class="card answer"><header><span>{esc(shorten(one["id"], 48))}</span></header>'
            f'<p class="note">answer: {said}p {fmt(one["p"])}</p>{"".join(parts)}</article>'
        )
    return f'<div class="heat-cards">{"".join(cards)}</div>'


DRAWINGS: dict[str, Callable[[dict[str, Any], np.ndarray], str]] = {
    "image": _picture,
    "spectrogram": _picture,
    "series": _series,
}
