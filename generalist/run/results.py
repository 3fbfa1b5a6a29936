"""What a finished training leaves: the Hugging Face folder, the held-out results, the table; and reading them back."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from generalist.data.base.errors import UserError
from generalist.evaluate import answer as evaluate
from generalist.evaluate.heldout import Wanted, hold_out
from generalist.evaluate.unread import FILE as UNREAD
from generalist.hf.card import write_card
from generalist.machine.progress import progress
from generalist.machine.terminal import laid_out
from generalist.model.objective import Objective
from generalist.recipe.load import read_recipe
from generalist.recipe.recipe import Recipe
from generalist.run import forgetting
from generalist.run.control import add_control
from generalist.run.looks import read as read_history
from generalist.train.checkpoints import owned
from generalist.train.freeze import trainable
from generalist.train.prepare import Prepared


def export(prepared: Prepared, model: Any, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """config, safetensors, processor and tokenizer files into a fresh folder.

    weights: the whole state under the names of the model, where the model's own tensors are not whole (ZeRO-3).
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar is enough
    try:
        model.save_pretrained(folder, state_dict=weights)
    finally:
        if shown:
            logging.enable_progress_bar()
    prepared.processor().save_pretrained(folder)


def exporter(prepared: Prepared, model: Any) -> Callable[[Path, dict[str, Any]], None]:
    """`export` as a checkpoint's saver calls it: with the weights of the whole objective, under its own names."""

    def write_model(folder: Path, weights: dict[str, Any]) -> None:
        export(prepared, model, folder, {name.removeprefix("model."): value for name, value in weights.items()})

    return write_model


def save_model(prepared: Prepared, model: Any, out: Path, name: str = "model") -> Path:
    """The Hugging Face folder: config, safetensors, processor and tokenizer files; replaced as a whole."""
    folder, partial = out / name, out / f"{name}.partial"
    try:
        owned.claim(out, [f"{name}.partial/"])
        shutil.rmtree(partial, ignore_errors=True)
        export(prepared, model, partial)
        owned.install(out, partial, name)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); free disk space or choose another --out") from error
    return folder


def evaluate_run(
    recipe: Recipe,
    prepared: Prepared,
    objective: Objective,
    out: Path,
    quiet: bool = False,
    train_seconds: float = 0.0,
    write: bool = False,
    leaks: bool = False,
) -> dict[str, Any]:
    """Held-out results of every task beside an ordinary baseline; metrics.json and predictions.json are written task
    by task, every answer (answers/TASK.jsonl) too; then space.npz.

    A task that fails is a line with its "error". write: captions are written out and measured too; leaks: test samples
    are looked for in the training split.
    """
    began, trained = time.time(), train_seconds or _trained(out)
    baseline = recipe.baseline_seconds if recipe.baseline else None
    wanted = Wanted(baseline, write, leaks, recipe.combine, recipe.faults.bad_rate)
    lines: dict[str, dict[str, Any]] = {}
    shown: dict[str, list[dict[str, Any]]] = {}
    spaces: list[dict[str, np.ndarray]] = []
    owned.remove(out, "answers")
    for split in ("test", "val"):
        (out / UNREAD.format(split=split)).unlink(missing_ok=True)
    metrics: dict[str, Any] = {"tasks": lines}
    history = read_history(out)
    for name, task in prepared.tasks.items():
        if owned.is_run(out):  # one of an earlier version has no list
            owned.claim(out, [f"answers/{quote(name, safe='')}{end}" for end in (".jsonl", ".captions.jsonl")])
        with progress(quiet, desc=f"evaluate {name}", unit="sample", leave=False) as bar:
            found = hold_out(task, prepared.records[name], objective, out, wanted, bar.update)
        lines[name], shown[name] = found.line, found.shown
        spaces += [found.space] if len(found.space.get("features", ())) else []
        add_control(recipe, lines, out)
        metrics |= {
            "seconds": {"train": round(trained, 1), "evaluate": round(time.time() - began, 1)},
            "steps": recipe.steps,
            "parameters": sum(p.numel() for p in objective.parameters()),
            "trainable": trainable(objective),
        }
        if history.looks:
            metrics["validation"] = history.summary()
        write_json(out / "metrics.json", metrics)
        write_json(out / "predictions.json", {"tasks": shown})
    if (start := forgetting.of_start(recipe, prepared, objective.model, lines)) is not None:
        metrics["start"] = start
        write_json(out / "metrics.json", metrics)
    if (out / "model").is_dir():
        scale = objective.model.config.zero_shot_scale
        write_card(out / "model", recipe.name, prepared.processor(), scale, metrics)
    space: dict[str, Any] = evaluate.joined_space(spaces)
    np.savez_compressed(out / "space.npz", **space)
    return metrics


def _trained(out: Path) -> float:
    """The seconds of training that an earlier evaluation of this run noted, else 0."""
    try:
        return float(json.loads((out / "metrics.json").read_text())["seconds"]["train"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def write_json(path: Path, value: Any) -> None:
    """Written aside and renamed: never half a file. What is no number is null: JSON knows no NaN."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_finite(value), indent=1, allow_nan=False))
    os.replace(partial, path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_run(run: Path) -> tuple[Recipe, Prepared, Objective]:
    """A finished run's recipe, parts and trained model. UserError when the folder is not a run."""
    from generalist.hf.saved import read_model
    from generalist.train.prepare import restore

    if not (run / "recipe.json").is_file():
        raise UserError(f"{run} is not a run folder (no recipe.json); give the folder that generalist train wrote")
    if not (run / "model" / "config.json").is_file():
        raise UserError(f"{run} holds no finished model; go on with generalist train ... --resume")
    recipe = read_recipe(run / "recipe.json")
    model, processor = read_model(run / "model")
    prepared = restore(recipe, processor)
    return recipe, prepared, Objective(model, prepared.sets, prepared.modalities)


def table(metrics: dict[str, Any]) -> str:
    """The results as a text table, then what there is to say of a task besides."""
    frozen = any("control" in line for line in metrics["tasks"].values())
    both = any("together" in line for line in metrics["tasks"].values())
    between = ["together"] if both else []
    head = (
        "task",
        "metric",
        "value",
        *(["random encoder"] if frozen else []),
        "chance",
        "baseline",
        *between,
        "",
        "n",
        "",
    )
    rows, notes = [head], []
    for name, line in metrics["tasks"].items():
        number = [("-" if line[k] is None else f"{line[k]:.3g}") for k in ("value", "chance", "baseline")]
        if frozen:
            number.insert(1, "not run" if line.get("control") is None else f"{line['control']:.3g}")
        if both:
            found = line.get("together")
            number.append("-" if not found else f"{found['value']:.3g}")
        metric = f"{line['metric']} ({'higher' if line['higher_is_better'] else 'lower'})"
        notes += [f"{name}: {note}" for note in line.get("notes", ())]
        if "error" in line:
            rows.append((name, metric, "failed", *number[1:], line["error"], "", ""))
            continue
        mark = {True: "reached", False: "not reached", None: ""}[evaluate.reaches(line)]
        kind = "synthetic" if line["synthetic"] else "real"
        rows.append((name, metric, *number, f"{line['baseline_name']}: {mark}", str(line["n_test"]), kind))
    widths = [max(len(r[i]) for r in rows if r[2] != "failed" or i < len(head) - 3) for i in range(len(head))]
    shown = laid_out(rows, widths)
    known = forgetting.table(metrics.get("start"))
    return "\n".join([*shown, *notes, *([known] if known else [])])
