"""What is in a data set, in numbers and plots: classes, lengths, sizes, ranges, missing values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.base.labels import Labels, shown
from generalist.data.media.media import opened
from generalist.data.stream.source import Records

ODD = "odd"  # instead of a number: a thing to count, such as sounds whose channels are of opposite phase
COLOURS = ("#35618f", "#b5542c", "#4c7a4c", "#7d5a94")


def measures(name: str, value: Any) -> dict[str, Any]:
    """What is counted of one field's value, which is opened: {measure: number}; ODD for what is odd of it.

    UserError when it cannot be opened.
    """
    if value is None or (isinstance(value, float) and value != value):
        return {f"{name}: missing": 1}
    found = opened(name, value)
    counted: dict[str, Any] = {f"{name}: {measure}": number for measure, number in found.measures.items()}
    counted |= {f"{name}: {note}": ODD for note in found.notes}
    if found.kind or found.notes:
        return counted
    if isinstance(value, str):
        return {f"{name}: words": len(value.split()), f"{name}: characters": len(value)}
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in measures(f"{name}.{key}", item).items()}
    if hasattr(value, "shape") and np.ndim(value):
        return {f"{name}: axis {i}": n for i, n in enumerate(value.shape)}
    if isinstance(value, list | tuple):
        return {f"{name}: items": len(value)}
    return {name: float(value)} if isinstance(value, int | float | np.number) and not isinstance(value, bool) else {}


def gather(records: Records, progress: Callable[[int], Any] = lambda n: None, limit: int = 0) -> dict[str, Any]:
    """Statistics of a split; limit: at most so many samples, evenly spread, 0 = all."""
    count = len(records)
    numbers = range(count) if not limit or limit >= count else np.linspace(0, count - 1, limit).round().astype(int)
    values: dict[str, list[float]] = defaultdict(list)
    classes: Counter = Counter()
    missing: Counter = Counter()
    odd: Counter = Counter()
    names, broken = records.info.get("classes") or [], 0
    labels = Labels(names, names) if names else None
    for number in numbers:
        progress(1)
        try:
            record = records[int(number)]
            counted = _counted(record)
        except UserError:
            broken += 1
            continue
        label = record.get("label")
        if isinstance(label, str | bool | np.bool_) or (isinstance(label, int | np.integer) and names):
            classes[shown(label, labels)] += 1
        for name, found in counted.items():
            for measure, number_of in found.items():
                if measure.endswith(": missing"):
                    missing[measure.removesuffix(": missing")] += 1
                elif number_of == ODD:
                    odd[measure] += 1
                elif not (name == "label" and classes):
                    values[measure].append(float(number_of))
    return {
        "samples": count,
        "looked_at": len(numbers),
        "broken": broken,
        "notes": list(records.info.get("notes", [])),
        "classes": dict(classes.most_common()),
        "missing": dict(missing),
        "odd": dict(odd),
        "measures": {name: summary(found) for name, found in values.items()},
        "_values": dict(values),
    }


def _counted(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{field: its measures}; a table's row that repeats the columns is left out."""
    fields = {k: v for k, v in record.items() if k != "id" and not (isinstance(v, dict) and v.keys() <= record.keys())}
    return {name: measures(name, value) for name, value in fields.items()}


def summary(values: list[float]) -> dict[str, float]:
    array = np.asarray(values)
    finite = array[np.isfinite(array)]
    if not len(finite):
        return {"count": 0.0}
    low, middle, high = np.percentile(finite, [5, 50, 95])
    found = {
        "count": len(finite),
        "mean": finite.mean(),
        "std": finite.std(),
        "least": finite.min(),
        "most": finite.max(),
    }
    return {k: float(v) for k, v in (found | {"5%": low, "median": middle, "95%": high}).items()}


def plot(splits: dict[str, dict[str, Any]], path: Path, title: str) -> int:
    """A page of plots as one PNG: the classes, and a histogram of every measure that varies; the number of plots."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    varying = [
        name
        for name in dict.fromkeys(n for s in splits.values() for n in s["_values"])
        if any(s["measures"].get(name, {}).get("std", 0) > 0 for s in splits.values())
    ][:23]
    has_classes = any(s["classes"] for s in splits.values())
    total = len(varying) + has_classes
    if not total:
        return 0
    columns = min(3, total)
    figure, axes = pyplot.subplots(-(-total // columns), columns, figsize=(4.6 * columns, 2.9 * -(-total // columns)))
    flat = list(np.atleast_1d(np.asarray(axes)).ravel())
    if has_classes:
        _classes(flat[0], splits)
    for axis, name in zip(flat[has_classes:], varying, strict=False):
        _histogram(axis, name, splits)
    for axis in flat[total:]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.legend(*flat[0].get_legend_handles_labels(), loc="upper right", fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return total


def _classes(axis: Any, splits: dict[str, dict[str, Any]]) -> None:
    names = list(dict.fromkeys(n for s in splits.values() for n in s["classes"]))[:30]
    width = 0.8 / len(splits)
    for number, (split, found) in enumerate(splits.items()):
        share = [found["classes"].get(n, 0) / max(1, sum(found["classes"].values())) for n in names]
        axis.bar(np.arange(len(names)) + number * width, share, width, label=split, color=COLOURS[number % 4])
    axis.set_xticks(
        np.arange(len(names)) + 0.4 - width / 2, [n[:14] for n in names], rotation=60, fontsize=7, ha="right"
    )
    axis.set_title("share of each class", fontsize=9)


def _histogram(axis: Any, name: str, splits: dict[str, dict[str, Any]]) -> None:
    every = np.concatenate([np.asarray(s["_values"].get(name, [])) for s in splits.values()])
    every = every[np.isfinite(every)]
    edges = np.histogram_bin_edges(every, bins=min(30, max(2, len(np.unique(every)))))
    for number, (split, found) in enumerate(splits.items()):
        values = np.asarray(found["_values"].get(name, []))
        axis.hist(
            values[np.isfinite(values)],
            edges,
            density=True,
            histtype="step",
            linewidth=1.4,
            label=split,
            color=COLOURS[number % 4],
        )
    axis.set_title(name, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.set_yticks([])
