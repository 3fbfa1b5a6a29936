"""The table of before and after, as text and for a model's card."""

from __future__ import annotations

from typing import Any

from generalist.hf.card import plain

SIDES = ("before", "after")
PER_SAMPLE = {"multiply_adds": "multiply-adds a sample", "peak_bytes": "peak bytes a sample"}


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """(what, before, after) of everything that was measured."""
    before, after = (found[side] for side in SIDES)
    table: list[tuple[str, ...]] = [("", *SIDES)]
    for name, line in found["tasks"].items():
        arrow = "higher" if line["higher_is_better"] else "lower"
        table.append((f"{name}: {line['metric']} ({arrow}, n {line['n']})", *(value(line[side]) for side in SIDES)))
    for name, line in found["tasks"].items():
        for size in line["before"]["milliseconds"]:
            label = f"{name}: ms a sample, batch {size}"
            table.append((label, *(f"{line[side]['milliseconds'][size]:.3g}" for side in SIDES)))
        for key, label in PER_SAMPLE.items():
            a, b = (line[side][key] for side in SIDES)
            table.append((f"{name}: {label}", f"{a:,.0f}", f"{b:,.0f} ({b / a if a else 1:.2f}x)"))
        if line["feature_change"] is not None:
            table.append((f"{name}: features changed by", "", f"{line['feature_change']:.2g}"))
    labels = {"weight_bytes": "bytes of weights", "folder_bytes": "bytes of the folder", "nonzero": "not zero"}
    for key in before:
        table.append((labels.get(key, key), f"{before[key]:,}", f"{after[key]:,} ({after[key] / before[key]:.2f}x)"))
    return table


def value(side: dict[str, Any]) -> str:
    bounds = "" if side["low"] is None else f" ({side['low']:.3g} .. {side['high']:.3g})"
    return f"{side['value']:.4g}{bounds}"


def table(found: dict[str, Any]) -> str:
    """The same as text, with what each method says of itself."""
    lines = rows(found)
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*shown, *(said(method) for method in found["methods"]), *found["notes"]])


def said(method: dict[str, Any]) -> str:
    """`prune: share given 0.3, weights 1,000, zeros 300, share 0.3`."""
    facts = [f"{k} {fact(v)}" for k, v in method.items() if k != "method"]
    return f"{method['method']}: {', '.join(facts) or 'weights stored as int8 with a scale a row'}"


def section(found: dict[str, Any]) -> str:
    """The same for the card."""
    head, *rest = rows(found)
    lines = [f"| {' | '.join(head)} |", "|---|---|---|", *(f"| {' | '.join(map(plain, row))} |" for row in rest)]
    told = [f"- {plain(said(method))}" for method in found["methods"]]
    return "\n".join(["## Compressed", "", *told, "", *lines, ""])


def fact(value: Any) -> str:
    """A number or word of what a method says of itself."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)
