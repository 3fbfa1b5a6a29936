"""One self-contained page on a run, `report.html`, made only from the files that the run left behind.

    log.jsonl         what happened in training          metrics.json      the results on test data
    recipe.json       what was asked for                 space.npz         representations of test data
                                                         predictions.json  some answers, with their inputs

A file that is missing leaves its section in place, saying which command makes it.
"""

from __future__ import annotations

import json
import os
import statistics
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from generalist.data.base.errors import UserError
from generalist.report.figures import colour, curve, esc, fmt, shorten
from generalist.report.page import render
from generalist.report.sections.confusion import confusion_section
from generalist.report.sections.curves import curves_section
from generalist.report.sections.evaluation import calibration_section, data_section, leakage_section, matrix_section
from generalist.report.sections.inspect import INSPECTED
from generalist.report.sections.interference import interference_section
from generalist.report.sections.results import Result, read_results, results_section
from generalist.report.sections.samples import predictions_section
from generalist.report.sections.space import in_order, space_section
from generalist.train.events import LOG, read_log

TRAIN, EVALUATE = "generalist train RECIPE", "generalist eval RUN"
MADE_BY = {LOG: TRAIN, "recipe.json": TRAIN} | dict.fromkeys(
    ("metrics.json", "space.npz", "predictions.json"), EVALUATE
)
ALONE = (
    "any_to_any.json",
    "tuning.json",
    "result.json",
    *(f"inspect/{kind}.json" for kind in INSPECTED),
)  # what others leave apart


def write_report(run: str | os.PathLike) -> Path:
    """Writes `run/report.html` and returns its path; a folder with none of a run's files is a UserError."""
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"{run} is not a folder: give the folder of a run, as `{TRAIN}` made it")
    recipe = _recipe(run)
    if recipe is None and not any((run / name).exists() for name in (*MADE_BY, *ALONE)):
        raise UserError(f"{run} is not a run (it has none of {', '.join(MADE_BY)}): make one with `{TRAIN}`")
    events = read_log(run)
    metrics = _json(run / "metrics.json")
    results = None if metrics is None else read_results(metrics, run / "metrics.json")
    interference = _json(run / "interference.json")
    matrix = _json(run / "any_to_any.json")
    inspected = {kind: _json(run / "inspect" / f"{kind}.json") for kind in INSPECTED}
    tuned, elsewhere = _found(run, "tuning", "tuning.json"), _found(run, "evaluations", "result.json")
    measured = {str(k): v for k, v in ((metrics or {}).get("tasks") or {}).items() if isinstance(v, dict)} | elsewhere
    samples, space = _json(run / "predictions.json"), _space(run / "space.npz")

    name = str((recipe or {}).get("name") or run.resolve().name)
    order = [r.task for r in results or []]  # one order, and so one colour a task, on the whole page
    sections = {
        "Results": _missing(run, "metrics.json")
        if results is None
        else results_section(results, (metrics or {}).get("start")),
        "Training": _training(events, order) if events else _missing(run, LOG),
        "Other data": data_section(elsewhere) if elsewhere else "",
        "Calibration": calibration_section(measured),
        "What is taken for what": confusion_section(run, (metrics or {}).get("tasks") or {}),
        "Any to any": "" if matrix is None else matrix_section(matrix),
        "Leakage": leakage_section(measured),
        "Learning curves": curves_section(tuned) if tuned else "",
        "Representation space": _missing(run, "space.npz") if space is None else space_section(*space, order),
        "Predictions": _missing(run, "predictions.json")
        if samples is None
        else predictions_section(samples, run / "predictions.json"),
        "Interference": "" if interference is None else interference_section(interference),
        **{kind.capitalize(): INSPECTED[kind](found) for kind, found in inspected.items() if found is not None},
        "Recipe": _missing(run, "recipe.json") if recipe is None else _recipe_list(recipe),
    }
    # a folder that an evaluation or a tuning left is no run: nothing of a run is missing in it
    alone = recipe is None and any((run / name).exists() for name in ALONE)
    sections = {k: html for k, html in sections.items() if html and not (alone and 'class="card missing"' in html)}
    html = render(
        "page.html",
        name=name,
        about=(recipe or {}).get("about"),
        date=datetime.now().astimezone().strftime("%d %B %Y, %H:%M").lstrip("0"),
        facts=_facts(results, events, metrics or {}, recipe or {}),
        sections=sections,
    )
    out = run / "report.html"
    fresh = run / "report.html.new"
    fresh.write_text(html, encoding="utf-8")
    fresh.replace(out)
    return out


def _json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file."""
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}): make it again with `{MADE_BY.get(path.name, EVALUATE)}`"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object: make it again with `{MADE_BY.get(path.name, EVALUATE)}`")
    return value


def _found(run: Path, folder: str, name: str) -> dict[str, Any]:
    """{name: content} of the run's own file and those in its `folder`/NAME/; a damaged file is a UserError."""
    paths = {p.parent.name: p for p in sorted(run.glob(f"{folder}/*/{name}"))}
    if (run / name).is_file():
        paths = {run.resolve().name: run / name} | paths
    out = {}
    for title, path in paths.items():
        try:
            value = json.loads(path.read_bytes())
            if not value or not isinstance(value[0] if isinstance(value, list) else value["measures"], dict):
                raise ValueError("something else is in it")
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): make it again") from None
        out[title] = value
    return out


def _recipe(run: Path) -> dict[str, Any] | None:
    """The resolved recipe: the run's own, or else the one saved beside its newest checkpoint."""
    beside = sorted(run.glob("checkpoints/step-*[0-9]/recipe.json"))  # zero-padded, so the newest is the last
    found = [run / "recipe.json"] if (run / "recipe.json").exists() else beside
    return _json(found[-1]) if found else None


def _space(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(features float [n, D], task str [n], label str [n]); None where there is no file."""
    if not path.exists():
        return None
    again = f"make it again with `{MADE_BY[path.name]}`"
    try:
        with np.load(path, allow_pickle=False) as file:
            features, task, label = file["features"], file["task"].astype(str), file["label"].astype(str)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): {again}") from None
    if features.ndim != 2 or task.shape != (len(features),) or label.shape != (len(features),):
        shapes = f"features {features.shape}, task {task.shape}, label {label.shape}"
        raise UserError(f"{path} does not hold features [n, D], task [n] and label [n] but {shapes}: {again}")
    if not np.isfinite(features).all():
        raise UserError(
            f"{path} holds features that are not finite: find the step where the loss left the finite numbers"
        )
    return features.astype(np.float64), task, label


def _missing(run: Path, name: str) -> str:
    command = MADE_BY[name].replace("RUN", str(run))
    state = "is empty" if (run / name).exists() else "is not in this run"
    words = "<code>{}</code> {}: <code>{}</code> makes it."
    return Markup(f'<div class="card missing"><p>{words}</p></div>').format(name, state, command)


def _facts(results: list[Result] | None, events: list[dict], metrics: dict, recipe: dict) -> list[tuple[str, str]]:
    """(name, value) of the numbers to see first; only those that the files give."""
    facts: list[tuple[str, str]] = []
    if results:
        compared = [r for r in results if r.baseline is not None]
        facts.append(("tasks evaluated", str(len(results))))
        if compared:
            facts.append(("reach their baseline", f"{sum(bool(r.reaches) for r in compared)} of {len(compared)}"))
    if steps := [e["step"] for e in events if isinstance(e.get("step"), int)]:
        facts.append(("last step logged", f"{max(steps):,}"))
    if seconds := [e["seconds"] for e in events if isinstance(e.get("seconds"), (int, float))]:
        facts.append(("time in steps", _duration(sum(seconds))))
    scalars = {k: v for k, v in metrics.items() if k != "tasks" and isinstance(v, (int, float, str))}
    facts += [(k.replace("_", " "), shorten(fmt(v), 40)) for k, v in list(scalars.items())[:6]]
    if "seed" in recipe and "seed" not in scalars:
        facts.append(("seed", shorten(recipe["seed"], 20)))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _training(events: list[dict], order: list[str]) -> str:
    """A panel a task with its loss, and one with the learning rate."""
    losses: dict[str, list[tuple[int, float]]] = {}
    speeds: dict[str, list[float]] = {}
    for e in events:
        task, step, loss = str(e.get("task", "all tasks")), e.get("step"), e.get("loss")
        if isinstance(step, (int, float)) and isinstance(loss, (int, float)):
            losses.setdefault(task, []).append((int(step), float(loss)))
            if isinstance(e.get("samples_per_second"), (int, float)):
                speeds.setdefault(task, []).append(float(e["samples_per_second"]))
    known = [e["step"] for e in events if isinstance(e.get("step"), (int, float))] or [0]
    span = (float(min(known)), float(max(known)))
    panels = []
    names = in_order(losses, order)
    for i, task in enumerate(names):
        step, loss = zip(*losses[task], strict=True)
        tenth = max(1, len(loss) // 10)
        words = [f"<b>{fmt(statistics.fmean(loss[:tenth]))} → {fmt(statistics.fmean(loss[-tenth:]))}</b>"]
        if task in speeds:
            words.append(f"{fmt(round(statistics.median(speeds[task])))} samples/s")
        if lost := sum(not np.isfinite(v) for v in loss):
            words.append(f"<b>{lost} of {len(loss)} losses are not finite</b>")
        drawing = curve(step, loss, f"loss of {task} by step", colour(i, len(names)), span)
        panels.append(_panel(esc(task), drawing, ", ".join(words)))
    panels += _looks(events, span)
    rates = {int(e["step"]): float(e["lr"]) for e in events if {"step", "lr"} <= e.keys() and e["lr"] is not None}
    if len(rates) > 1:
        drawing = curve(list(rates), list(rates.values()), "learning rate by step", "var(--soft)", span, smooth=False)
        panels.append(_panel("Learning rate", drawing, f"highest <b>{fmt(max(rates.values()))}</b>"))
    note = (
        "Loss (−log likelihood per answer) by step: each logged value faint, a centred moving average strong. "
        "Below each curve the mean of its first and last tenth. Losses of different tasks have different numbers of "
        "candidates and do not compare."
    )
    return f'<p class="note">{note}</p><div class="grid3">{"".join(panels)}</div>'


def _looks(events: list[dict], span: tuple[float, float]) -> list[str]:
    """A panel a task and measure with its values on validation data."""
    found: dict[str, list[tuple[int, float]]] = {}
    for e in events:
        for key, value in e.items():
            if key.startswith("val/") and key.count("/") > 1 and isinstance(value, (int, float)):
                found.setdefault(key.removeprefix("val/"), []).append((int(e["step"]), float(value)))
    panels = []
    for i, (name, points) in enumerate(found.items()):
        task, _, metric = name.rpartition("/")
        step, value = zip(*points, strict=True)
        drawing = curve(
            step, value, f"validation {metric} of {task} by step", colour(i, len(found)), span, smooth=False
        )
        words = f"<b>{fmt(value[0])} → {fmt(value[-1])}</b>, {len(value)} looks, {fmt(min(value))} to {fmt(max(value))}"
        panels.append(_panel(f"{esc(task)}: validation {esc(metric)}", drawing, words))
    return panels


def _panel(title: str, drawing: str, words: str) -> str:
    return f'<figure class="card"><h4>{title}</h4>{drawing}<figcaption>{words}</figcaption></figure>'


def _recipe_list(recipe: dict[str, Any]) -> str:
    """The top-level values in sight, the whole tree one click away."""
    flat = _flat(recipe)
    brief = [(k, v) for k, v in flat if not set(k) & set(".[") and k not in ("class", "about")][:12]
    return render("recipe.html", brief=brief, every=flat)


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [pair for k, v in value.items() for pair in _flat(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        return [pair for i, v in enumerate(value) for pair in _flat(v, f"{prefix}[{i}]")]
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return [(prefix, json.dumps(value, ensure_ascii=False, default=str))]
    return [(prefix, f"{value:g}" if isinstance(value, float) else str(value))]
