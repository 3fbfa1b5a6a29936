"""The shared representation space of a run: one map of all tasks, and one a classification task."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np

from generalist.report.figures import colour, esc, fmt, legend, scatter
from generalist.report.projection import MOST_POINTS, neighbour_agreement, project, subsample

MOST_CLASSES = 20
IN_LEGEND = 12


def space_section(features: np.ndarray, task: np.ndarray, label: np.ndarray, order: list[str]) -> str:
    """features float [n, D], task and label str [n], the page's order of tasks → HTML."""
    if not len(features):
        return '<p class="note">space.npz holds no points.</p>'
    rows = subsample(task)
    xy, method = project(features[rows])
    names = in_order(task.tolist(), order)
    hues = [colour(i, len(names)) for i in range(len(names))]
    group = [names.index(t) for t in task[rows]]
    tips = [f"{t}: {w}" for t, w in zip(task[rows], label[rows], strict=True)]
    few = f" ({len(rows):,} of {len(task):,} points, every task with its share)" if len(rows) < len(task) else ""
    words = f"{method} of {features.shape[1]} dimensions, {len(rows):,} points, one colour a task{few}. "
    if len(names) > 1:
        same, chance = neighbour_agreement(features[rows], task[rows])
        words += f"In the space itself the nearest neighbour is of the same task for {_percent(same, chance)}."
    if method == "t-SNE":
        words += " t-SNE keeps neighbourhoods; its axes, and the distances between clusters, mean nothing."
    picture = scatter(xy, group, hues, tips, "map of the representation space, a colour a task", (640, 460))
    out = (
        f'<figure class="card wide">{picture}<div>{legend(names, hues)}<figcaption>{words}</figcaption></div></figure>'
    )
    panels = [
        _classes(features[task == name], label[task == name], name) for name in names if is_classes(label, task, name)
    ]
    if panels:
        out += (
            "<h3>Coloured by class</h3><p class='note'>Each task with few distinct labels, its points mapped by "
            f"themselves.</p><div class='grid3'>{''.join(panels)}</div>"
        )
    return out


def is_classes(label: np.ndarray, task: np.ndarray, name: str) -> bool:
    """The labels of a task are classes: few, and seen more than once (a retrieval task's are all different)."""
    mine = label[task == name]
    kinds = len(np.unique(mine))
    return 2 <= kinds <= MOST_CLASSES and len(mine) >= 3 * kinds


def _classes(features: np.ndarray, label: np.ndarray, name: str) -> str:
    rows = subsample(label, MOST_POINTS // 4)
    features, label = features[rows], label[rows]
    xy, method = project(features)
    classes = sorted(np.unique(label).tolist(), key=_natural)
    hues = [colour(i, len(classes)) for i in range(len(classes))]
    group = [classes.index(v) for v in label]
    same, chance = neighbour_agreement(features, label)
    picture = scatter(xy, group, hues, label.tolist(), f"map of {name}, a colour a class", (300, 220))
    key = legend(classes[:IN_LEGEND], hues[:IN_LEGEND])
    more = f" {len(classes) - IN_LEGEND} more classes are not in the legend." if len(classes) > IN_LEGEND else ""
    words = f"{method}, {len(rows):,} points. Nearest neighbour of the same class: {_percent(same, chance)}.{more}"
    return f'<figure class="card"><h4>{esc(name)}</h4>{picture}{key}<figcaption>{words}</figcaption></figure>'


def in_order(names: Iterable[str], order: list[str]) -> list[str]:
    """The distinct names, those of `order` first and in its order."""
    seen = dict.fromkeys(names)
    return [n for n in order if n in seen] + [n for n in seen if n not in order]


def _natural(text: str) -> tuple[float, list[tuple[int, str]]]:
    """Numbers by size, then words; a number inside a word counts as a number (class 2 before class 10)."""
    try:
        return float(text), []
    except ValueError:
        parts = re.split(r"(\d+)", text)
        return math.inf, [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]


def _percent(same: float, chance: float) -> str:
    if not np.isfinite(same):
        return fmt(None)
    return f"<b>{100 * same:.0f} %</b> (by chance {100 * chance:.0f} %)"
