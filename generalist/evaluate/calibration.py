"""Temperatures: one a logit scale, fitted on validation data, so that what a model is sure of is as often right.

p ∝ exp(cos · scale / T), T by the least mean misfit of the validation answers (temperature scaling, 1706.04599,
section 4.2): the negative log-likelihood of names, the CRPS of numbers (`CandidateSet.misfits`). It changes no order of
candidates. It is saved in the model's configuration, so that every client's probabilities are the calibrated ones. The
intervals of numbers get a width besides, those of a forecast one a step (`generalist.evaluate.widths`), saved with
their bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.evaluate import answer as evaluate
from generalist.evaluate import measures, widths
from generalist.evaluate.unread import Unread
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Numbers
from generalist.tasks.measures.lines import joined

LEAST = 30  # validation answers, below which nothing is fitted
MOST = 4000  # that are looked at, fewer where the candidates are very many
WINDOWS = 500  # of a forecast, or rows, that tell how wide intervals are
RANGE = (math.log(0.01), math.log(20.0))  # of log T
SHOWN = ("ECE", "nll", "CRPS", "coverage of 80% interval")  # measures that a temperature changes

Told = tuple[CandidateSet, Tensor, Tensor]  # log p and labels of validation answers


def calibrate(tasks: dict[str, Task], objective: Objective, bad_rate: float) -> list[str]:
    """Fit and set the temperatures of all tasks' scales; what was not fitted, in lines."""
    objective.model.config.temperatures = {}
    by_scale: dict[str, list[Told]] = {}
    notes = []
    for name, task in tasks.items():
        found = told(task, objective, bad_rate)
        if isinstance(found, str):
            notes += [f"{name}: not calibrated, {found}"] if found else []
        else:
            by_scale.setdefault(task.scale, []).append(found)
    temperatures = {scale: temperature(parts) for scale, parts in by_scale.items()}
    objective.model.config.temperatures = {scale: t for scale, t in temperatures.items() if t is not None}
    for task in tasks.values():
        if task.numbered is not None:
            task.numbered.widths = reaching(task, task.numbered, objective, bad_rate)
    return notes


def reaching(task: Task, numbers: Numbers, objective: Objective, bad_rate: float) -> list[float]:
    """The widths of intervals as the model says them now, by some validation windows or rows."""
    try:
        records = task.open("val").spread(WINDOWS)
    except UserError:
        return []
    answers = evaluate.answer(task, records, objective, unread=Unread("val", rate=bad_rate))
    every, windows = slice(None), len(answers.records)
    log_p, labels = answers.log_p(every).cpu(), answers.targets(every).cpu()
    return widths.fitted(numbers, task.by_step(log_p, windows), task.by_step(labels, windows))


def told(task: Task, objective: Objective, bad_rate: float) -> Told | str:
    """Validation answers of a task, or why there are none to fit by ("" where none are wanted)."""
    chosen = task.candidates
    if chosen is None or type(chosen).misfits is CandidateSet.misfits:
        return ""
    try:
        records = task.open("val")
    except UserError as error:
        return f"no validation data ({error})"
    answers = evaluate.answer(task, records, objective, unread=Unread("val", rate=bad_rate))
    if len(answers.queries) < LEAST:
        return f"{len(answers.queries)} validation answers are fewer than {LEAST}"
    step = max(1, -(-len(answers.queries) // max(LEAST, min(MOST, answers.at_once))))
    rows = torch.arange(0, len(answers.queries), step)
    return chosen, answers.log_p(rows).double().cpu(), answers.targets(rows).cpu()


def temperature(parts: list[Told]) -> float | None:
    """The T of the least summed misfit, None where no finite one is found."""
    from scipy.optimize import minimize_scalar

    def misfit(log_t: float) -> float:
        found = [c.misfit((log_p / math.exp(log_t)).log_softmax(-1), labels) for c, log_p, labels in parts]
        return float(sum(float(one) for one in found if one is not None))

    best = minimize_scalar(misfit, bounds=RANGE, method="bounded", options={"xatol": 1e-3})
    if not math.isfinite(best.fun) or best.fun >= misfit(0.0):
        return None
    return round(math.exp(float(best.x)), 4)


@contextmanager
def as_trained(model: Any) -> Iterator[None]:
    """Inside, probabilities are those without temperatures."""
    held = model.config.temperatures
    model.config.temperatures = {}
    try:
        yield
    finally:
        model.config.temperatures = held


def compared(answers: evaluate.Answers, model: Any) -> dict[str, Any]:
    """{"temperature", "before": {measure: value}, "after"} of a task whose scale has a temperature; {} of another."""
    task = answers.task
    found = model.config.temperatures.get(task.scale)
    if found is None or answers.keys is not None:
        return {}
    with as_trained(model), widths.worn(task, []):
        columns = joined(evaluate.kept(answers))
    before = measures.values(task.line_kind, columns)
    after = {name: answers.derived[name] for name in SHOWN if name in before}
    return {"temperature": found, "before": {name: before[name] for name in after}, "after": after}


def said(line: dict[str, Any]) -> str:
    """A line's calibration in words; "" without one."""
    if not line:
        return ""
    parts = [f"{n} {line['before'][n]:.3g} -> {line['after'][n]:.3g}" for n in line["after"]]
    return f"temperature {line['temperature']:.3g} from validation data: {', '.join(parts)}"


def plot_reliability(result: dict[str, Any], path: Path) -> None:
    """Accuracy over confidence, with the diagonal of perfect calibration; dots as large as their bins are full."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", label="perfect")
    lines = result["reliability"]
    size = [200 * line["count"] / result["answers"] + 10 for line in lines]
    axes.scatter([li["confidence"] for li in lines], [li["accuracy"] for li in lines], s=size, label="measured")
    axes.set(xlabel="confidence", ylabel="accuracy", title=f"ECE {result['measures']['ECE']['value']:.3f}")
    axes.legend()
    figure.savefig(path)
