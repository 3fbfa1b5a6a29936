"""What a finished training leaves: the Hugging Face folder, the held-out results, the table; and reading them back."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from data.errors import UserError
from data.source import Records, from_sound
from generalist import evaluate, measures, predictions, written
from generalist.control import add_control
from generalist.freeze import trainable
from generalist.hf.card import write_card
from generalist.leakage import compared_fields, leakage
from generalist.objective import Objective
from generalist.prepare import Prepared
from generalist.recipe import Recipe, read_recipe
from tasks.lines import Columns

RESAMPLES = 500  # of the intervals beside a run's results


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


def save_model(prepared: Prepared, model: Any, out: Path) -> Path:
    """The Hugging Face folder: config, safetensors, processor and tokenizer files; replaced as a whole."""
    folder, partial = out / "model", out / "model.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        export(prepared, model, partial)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
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
    """Held-out results of every task beside an ordinary baseline; writes metrics.json, predictions.json, space.npz
    and every answer (answers/TASK.jsonl).

    write: captions are written out and measured too; leaks: test samples are looked for in the training split.
    """
    began = time.time()
    lines, shown, everything = {}, {}, []
    shutil.rmtree(out / "answers", ignore_errors=True)
    for task in tqdm(list(prepared.tasks.values()), desc="evaluate", unit="task", disable=quiet, file=sys.stderr):
        test = task.open("test")
        answers = evaluate.answer(task, test, objective)
        val = task.open("val")
        baseline = from_sound(partial(task.baseline, val=val, test=test), prepared.records[task.name], task.example)
        written_as = objective if write else None
        file = out / "answers" / f"{quote(task.name, safe='')}.jsonl"
        columns = predictions.kept(answers)
        lines[task.name] = evaluate.row(answers, baseline) | measured(answers, columns, file, written_as)
        if leaks:
            find = partial(leakage_of, answers, columns)
            lines[task.name]["leakage"] = from_sound(find, prepared.records[task.name], task.example)
        shown[task.name] = evaluate.samples(answers)
        everything.append(answers)
    add_control(recipe, lines, out)
    metrics = {
        "tasks": lines,
        "seconds": {"train": round(train_seconds or _trained(out), 1), "evaluate": round(time.time() - began, 1)},
        "steps": recipe.steps,
        "parameters": sum(p.numel() for p in objective.parameters()),
        "trainable": trainable(objective),
    }
    write_json(out / "metrics.json", metrics)
    if (out / "model").is_dir():
        scale = objective.model.config.zero_shot_scale
        write_card(out / "model", recipe.name, prepared.processor(), scale, metrics)
    write_json(out / "predictions.json", {"tasks": shown})
    space: dict[str, Any] = evaluate.space(everything)
    np.savez_compressed(out / "space.npz", **space)
    return metrics


def leakage_of(answers: evaluate.Answers, columns: Columns, training: Records) -> dict[str, Any]:
    """What a line of metrics.json says of test samples that were trained on."""
    task = answers.task
    return leakage(task.line_kind, columns, training, answers.records, compared_fields(task), RESAMPLES)


def measured(
    answers: evaluate.Answers, columns: Columns, file: Path, writer: Objective | None = None
) -> dict[str, Any]:
    """Saves every answer; what a line of metrics.json says besides: all measures, the interval, the calibration.

    writer: captions are written by it, into a file of their own.
    """
    predictions.save(file, predictions.head_of(answers.task), answers.ids, columns)
    result = measures.measure(answers.task.line_kind, columns, resamples=RESAMPLES, known=answers.derived)
    if writer is not None:
        result["measures"] |= written.measured(writer.model, answers, file.with_suffix(".captions.jsonl"))
    main = result["measures"].get(answers.task.metric, {"low": None, "high": None})
    extra = answers.metrics | {name: one["value"] for name, one in result["measures"].items()}
    more = {name: result[name] for name in ("measures", "reliability") if name in result}
    return {"low": main["low"], "high": main["high"], "extra": extra, "answers": file.name} | more


def _trained(out: Path) -> float:
    """The seconds of training that an earlier evaluation of this run noted, else 0."""
    try:
        return float(json.loads((out / "metrics.json").read_text())["seconds"]["train"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def write_json(path: Path, value: Any) -> None:
    """Written aside and renamed: never half a file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1, allow_nan=True))
    os.replace(partial, path)


def load_run(run: Path) -> tuple[Recipe, Prepared, Objective]:
    """A finished run's recipe, parts and trained model. UserError when the folder is not a run."""
    from generalist.prepare import restore
    from generalist.saved import read_model

    if not (run / "recipe.json").is_file():
        raise UserError(f"{run} is not a run folder (no recipe.json); give the folder that generalist train wrote")
    if not (run / "model" / "config.json").is_file():
        raise UserError(f"{run} holds no finished model; go on with generalist train ... --resume")
    recipe = read_recipe(run / "recipe.json")
    model, processor = read_model(run / "model")
    prepared = restore(recipe, processor)
    return recipe, prepared, Objective(model, prepared.sets, prepared.modalities)


def table(metrics: dict[str, Any]) -> str:
    """The results as a text table."""
    frozen = any("control" in line for line in metrics["tasks"].values())
    head = ("task", "metric", "value", *(["random encoder"] if frozen else []), "chance", "baseline", "", "n", "")
    rows = [head]
    for name, line in metrics["tasks"].items():
        reached = evaluate.reaches(line)
        mark = {True: "reached", False: "not reached", None: ""}[reached]
        number = [("-" if line[k] is None else f"{line[k]:.3g}") for k in ("value", "chance", "baseline")]
        if frozen:
            number.insert(1, "not run" if line.get("control") is None else f"{line['control']:.3g}")
        arrow = "higher" if line["higher_is_better"] else "lower"
        note = "synthetic" if line["synthetic"] else "real"
        rows.append(
            (
                name,
                f"{line['metric']} ({arrow})",
                *number,
                f"{line['baseline_name']}: {mark}",
                str(line["n_test"]),
                note,
            )
        )
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
