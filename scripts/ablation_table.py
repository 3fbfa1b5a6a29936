"""What the v2 ablation says: its table, its differences within a seed beside the paper's, and its plot."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, tuple[float, float]]  # {task: (mean, standard deviation)}
Table = dict[str, Row]

MEASURES = {"cells": "AP50", "digits": "accuracy", "shapes": "recall@1"}
ALL = "all"  # the mean of the three, where a variant has them all
# The paper's numbers, table 4 with ResNet-50: detection AP, ImageNet accuracy, COCO image-to-text recall@1. All with
# experts, but for the last two rows. Its "mixed" is a little better than its "unmixed": gathering is what pays.
PAPER: dict[str, tuple[float | None, float, float]] = {
    "mixed": (49.6, 76.7, 40.1),
    "unmixed": (49.2, 76.6, 39.8),
    "gathered": (49.3, 76.8, 50.4),
    "balanced": (49.9, 76.9, 51.3),  # also its "both" and its "moe"
    "global": (None, 76.8, 46.3),
    "regional": (48.2, 75.9, 52.3),
    "without experts": (49.8, 76.3, 46.0),
    "alone": (50.1, 76.1, 50.0),
}
ENOUGH = 3  # seeds; the spread of two says nothing
SAMPLING = ("mixed", "unmixed", "gathered", "balanced")
# two variants to compare, and the two rows of the paper that say how they differ there
CLAIMS = (
    (("unmixed", "mixed"), ("unmixed", "mixed")),
    (("gathered", "unmixed"), ("gathered", "unmixed")),
    (("balanced", "gathered"), ("balanced", "gathered")),
    (("moe", "balanced"), ("balanced", "without experts")),
    (("balanced", "global"), ("balanced", "global")),
    (("balanced", "regional"), ("balanced", "regional")),
    (("balanced", "alone"), ("without experts", "alone")),
    (("moe", "alone"), ("balanced", "alone")),
)


def with_all(run: dict[str, float]) -> dict[str, float]:
    """The run with the mean of its measures, where it has them all."""
    return (
        run if any(task not in run for task in MEASURES) else {**run, ALL: statistics.fmean(run[t] for t in MEASURES)}
    )


def spread(values: list[float]) -> float:
    """Standard deviation; of one value NaN."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def summary(results: dict[str, list[dict[str, float]]]) -> Table:
    """{variant: {task, or "all": (mean, standard deviation)}}; a spread of one seed is NaN."""
    table: Table = {}
    for variant, runs in results.items():
        table[variant] = {}
        for task in (*MEASURES, ALL):
            values = [run[task] for run in map(with_all, runs) if task in run]
            if values:
                table[variant][task] = (statistics.fmean(values), spread(values))
    return table


def paper(row: str) -> dict[str, float]:
    """A row of the paper's table in our tasks' names, with its mean where it is whole."""
    return with_all({task: value for task, value in zip(MEASURES, PAPER[row], strict=True) if value is not None})


@dataclass
class Gap:
    """A difference of two variants within a seed, and the paper's in its own units (percent)."""

    mean: float
    spread: float
    paper: float
    seeds: int = ENOUGH

    @property
    def beyond(self) -> bool:
        """Whether it is more than twice its spread over enough seeds."""
        return self.seeds >= ENOUGH and abs(self.mean) > 2 * self.spread

    def __str__(self) -> str:
        said = f"{self.mean:+.3f} ± {self.spread:.3f}"
        return f"{f'**{said}**' if self.beyond else said} ({self.paper:+.1f})"


def claims(results: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Gap]]:
    """{"one - other": {task: difference}} of the pairs that the paper compares."""
    out: dict[str, dict[str, Gap]] = {}
    for (one, other), rows in CLAIMS:
        pairs = list(zip(map(with_all, results.get(one, [])), map(with_all, results.get(other, [])), strict=False))
        theirs = [paper(row) for row in rows]
        found = {}
        for task in (*MEASURES, ALL):
            gaps = [a[task] - b[task] for a, b in pairs if task in a and task in b]
            if gaps and all(task in row for row in theirs):
                found[task] = Gap(statistics.fmean(gaps), spread(gaps), theirs[0][task] - theirs[1][task], len(gaps))
        if found:
            out[f"{one} - {other}"] = found
    return out


def agreement(found: dict[str, dict[str, Gap]]) -> str:
    """How many of the single tasks' differences point where the paper's do."""
    gaps = [gap for row in found.values() for task, gap in row.items() if task != ALL]
    clear = [gap for gap in gaps if gap.beyond]
    same = [sum((gap.mean > 0) == (gap.paper > 0) for gap in some) for some in (gaps, clear)]
    return (
        f"{same[0]} of {len(gaps)} differences point where the paper's do; "
        f"of the {len(clear)} that are more than twice their spread, {same[1]}"
    )


def verdict(table: Table) -> list[str]:
    """For every task: whether the paper's order of the four ways to train shows, and by more than the spread."""
    said = []
    for task, measure in {**MEASURES, ALL: "mean"}.items():
        known = [v for v in SAMPLING if task in table.get(v, {})]
        if len(known) < 2:
            continue
        known.sort(key=lambda v: paper(v)[task])
        values = [table[v][task][0] for v in known]
        words = ", ".join(f"{v} {value:.3f}" for v, value in zip(known, values, strict=True))
        gap = values[-1] - values[0]
        largest = max(table[v][task][1] for v in known)
        if values != sorted(values):
            told = "the paper's order does not show"
        elif not gap > 2 * largest:  # also where the spread of one seed is unknown
            told = "the order is the paper's, but no larger than the spread of the seeds: not established"
        else:
            told = "the paper's order shows"
        said.append(f"{task} ({measure}): {told} ({words}; largest spread {largest:.3f})")
    return said


def markdown(table: Table, found: dict[str, dict[str, Gap]] | None = None) -> str:
    """The variants' table, and under it the differences; bold: more than twice its spread."""
    columns = {**MEASURES, ALL: ""}
    head = " | ".join(f"{t} {m}".strip() for t, m in columns.items())
    lines = [f"| variant | {head} |", "|---" * (len(columns) + 1) + "|"]
    for variant, row in table.items():
        cells = [f"{row[t][0]:.3f} ± {row[t][1]:.3f}" if t in row else "-" for t in columns]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    if found:
        lines += ["", f"| difference within a seed (the paper's, %) | {head} |", "|---" * (len(columns) + 1) + "|"]
        for name, gaps in found.items():
            cells = [str(gaps[t]) if t in gaps else "-" for t in columns]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(table: Table, path: Path) -> None:
    """A panel a task: mean and spread of every variant, lying, so that the names are read without turning the head."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = {**MEASURES, ALL: "mean of the three"}
    names = list(reversed(table))
    figure, axes = pyplot.subplots(1, len(columns), figsize=(10, 2.9), sharey=True)
    for axis, (task, measure) in zip(axes, columns.items(), strict=True):
        for at, name in enumerate(names):
            if task not in table[name]:
                continue
            mean, deviation = table[name][task]
            colour = "#2a7f62" if name in SAMPLING else "#8a8a8a"
            axis.errorbar(mean, at, xerr=0 if deviation != deviation else deviation, fmt="o", color=colour, capsize=3)
        axis.set_title(f"{task}: {measure}", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
