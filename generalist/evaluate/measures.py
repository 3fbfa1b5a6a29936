"""Measures of saved answers with bootstrap intervals and chance lines: all derived from their lines
(`generalist.tasks.measures.lines`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.tasks.measures.average_precision import cost
from generalist.tasks.measures.lines import KINDS, Columns
from generalist.tasks.measures.reliability import reliability

RESAMPLES = 1000
WORK = 20_000_000  # answers looked at over all resamples: above it fewer resamples are drawn, 50 at least
AT_ONCE = 4_000_000


def values(kind: str, columns: Columns) -> dict[str, float]:
    """{measure: its value over all answers}."""
    count = len(columns["record"])
    return {name: float(v[0]) for name, v in KINDS[kind][0](columns, np.ones((1, count))).items()}


def intervals(
    kind: str,
    columns: Columns,
    seed: int = 0,
    resamples: int = RESAMPLES,
    known: dict[str, float] | None = None,
) -> dict[str, dict[str, float | None]]:
    """{measure: {value, low, high}}: 95 % percentile bootstrap over records, all answers of one drawn together.

    low and high are None where a measure has no value in some resample, or nothing was resampled. known: the `values`
    of these columns, where they were computed before.
    """
    found = values(kind, columns) if known is None else known
    count = len(columns["record"])
    _, owner = np.unique(columns["record"], return_inverse=True)
    records = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    draws = min(resamples, max(50, WORK // work(columns))) if resamples else 0
    parts = []
    while draws > 0:
        now = min(draws, max(1, AT_ONCE // max(count, records)))
        drawn = rng.multinomial(records, np.full(records, 1 / records), size=now)
        parts.append(KINDS[kind][0](columns, drawn[:, owner].astype(float)))
        draws -= now
    out: dict[str, dict[str, float | None]] = {}
    for name, value in found.items():
        again = np.concatenate([part[name] for part in parts]) if parts else np.full(1, np.nan)
        usable = bool(np.isfinite(again).all())
        low, high = np.quantile(again, [0.025, 0.975]) if usable else (None, None)
        bounds = {"low": None if low is None else float(low), "high": None if high is None else float(high)}
        out[name] = {"value": value, **bounds}
    return out


def work(columns: Columns) -> int:
    """Answers that one resample looks at; average precision looks at its detections once for every class."""
    if "found" in columns and "truth" in columns:
        return max(1, cost(columns["truth"].tolist(), columns["found"].tolist()))
    return len(columns["record"])


def measure(
    kind: str,
    columns: Columns,
    seed: int = 0,
    resamples: int = RESAMPLES,
    known: dict[str, float] | None = None,
) -> dict[str, Any]:
    """{"n" records, "answers", "measures" {name: {value, low, high}}, "chance" {...}} and the reliability diagram."""
    result: dict[str, Any] = {
        "kind": kind,
        "n": len(np.unique(columns["record"])),
        "answers": len(columns["record"]),
        "measures": intervals(kind, columns, seed, resamples, known),
        "chance": KINDS[kind][1](columns),
    }
    if "choices" in columns:
        result["classes"] = int(columns["choices"].max())
    if "confidence" in columns:
        result["reliability"] = reliability(columns)
    return result


def table(result: dict[str, Any]) -> str:
    """The measures as text, one a line, with their intervals."""
    among = f", {result['classes']} candidates" if "classes" in result else ""
    width = max(12, *(len(name) for name in result["measures"]))
    lines = [f"{'measure':{width}} {'value':>8}  95 % interval over {result['n']} samples{among}"]
    for name, one in result["measures"].items():
        bounds = "" if one["low"] is None else f"  {one['low']:.4f} .. {one['high']:.4f}"
        lines.append(f"{name:{width}} {one['value']:8.4f}{bounds}")
    chance = result["chance"]
    if "uniform" in chance:
        lines.append(
            f"chance: {chance['uniform']:.4f} uniform, {chance['most common class']:.4f} the most common class"
        )
    elif chance:
        lines.append("chance: " + ", ".join(f"{name} {value:.4f}" for name, value in chance.items()))
    return "\n".join(lines)
