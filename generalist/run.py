"""`generalist train`: a recipe from its first step to its report, stopped and resumed without a difference."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from data.errors import UserError
from data.schedule import Schedule
from data.stream import Steps, loader
from generalist import checkpoint, evaluate
from generalist.engine import LocalEngine
from generalist.events import EventLog
from generalist.loop import StepResult, train
from generalist.objective import Objective
from generalist.optimizer import BalancedAdamW, parameter_groups
from generalist.prepare import Prepared, prepare
from generalist.recipe import Recipe, from_json, to_json


class Interrupted(Exception):
    """The run was asked to stop and has saved."""


def open_run(recipe: Recipe, out: Path, resume: bool, overwrite: bool) -> int:
    """Check and create the run's folder; the first step to do."""
    held = checkpoint.checkpoints(out)
    if resume:
        step, folder = checkpoint.latest(out)
        saved = json.loads((folder / "recipe.json").read_text())
        changed = differences(saved, to_json(recipe))
        if changed:
            raise UserError(
                f"{out} was trained with another recipe ({'; '.join(changed[:3])}); give the same keys or another --out"
            )
        return step
    if held and not overwrite:
        raise UserError(f"{out} already holds a run; --resume goes on with it, --overwrite or another --out starts anew")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _clear(out)
        (out / "recipe.json").write_text(json.dumps(to_json(recipe), indent=1))
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose a folder you may write to with --out") from error
    return 0


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote here, and only that."""
    import shutil

    for name in ("checkpoints", "model", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("metrics.json", "predictions.json", "space.npz", "report.html", "log.jsonl"):
        (out / name).unlink(missing_ok=True)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two JSON trees differ, as "key: old -> new"; the loader's workers may change."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [k for k in {**a, **b} if f"{path}{k}" not in ("workers", "checkpoint", "engine")]
        return [d for k in keys for d in differences(a.get(k), b.get(k), f"{path}{k}.")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}{i}.")]
    return [] if a == b else [f"{path.rstrip('.')}: {a!r} -> {b!r}"]


def device_of(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UserError(f"engine.device={name!r} is not a device; use auto, cpu or cuda") from error


def build_optimizer(recipe: Recipe, objective: Objective) -> torch.optim.Optimizer:
    spec = recipe.optimizer
    groups = parameter_groups(objective, spec.weight_decay)
    if spec.kind == "adamw":
        return torch.optim.AdamW(groups, spec.lr, tuple(spec.betas), spec.eps)
    return BalancedAdamW(groups, spec.lr, tuple(spec.betas), spec.eps, bias_correction=spec.bias_correction)


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM fill the list instead of cutting a step in half."""
    asked: list[int] = []
    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            kept[number] = signal.signal(number, lambda n, _frame: asked.append(n))
        except ValueError:  # not the main thread: the caller keeps its own handling
            pass
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def train_run(recipe: Recipe, out: Path, resume: bool = False, overwrite: bool = False, quiet: bool = False) -> dict:
    """Train, evaluate, write the run's folder. Returns what metrics.json holds."""
    recipe.check()
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    first = open_run(recipe, out, resume, overwrite)
    began = time.time()
    prepared = prepare(recipe)
    model = prepared.model(recipe)
    objective = Objective(model, prepared.sets, prepared.modalities)
    engine = LocalEngine(
        objective,
        build_optimizer(recipe, objective),
        device_of(recipe.engine.device),
        recipe.engine.precision,
        recipe.optimizer.clip,
    )
    torch.manual_seed(recipe.seed + 1)
    if resume:
        engine.load(checkpoint.latest(out)[1])
    if first < recipe.steps:
        _train(recipe, prepared, engine, out, first, quiet)
    save_model(prepared, model, out)
    metrics = evaluate_run(recipe, prepared, objective, out, quiet, train_seconds=time.time() - began)
    from generalist.report import write_report

    write_report(out)
    return metrics


def _train(recipe: Recipe, prepared: Prepared, engine: LocalEngine, out: Path, first: int, quiet: bool) -> None:
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed, recipe.sampling == "mixed")
    steps = Steps(prepared.feeds(), schedule, recipe.seed, engine.rank, engine.world, recipe.engine.accumulate)
    recipe_json = to_json(recipe)
    log = EventLog(out, resume_at=first)
    bar = tqdm(total=recipe.steps, initial=first, unit="step", disable=quiet, file=sys.stderr, dynamic_ncols=True)
    last_loss: dict[str, float] = {}
    with stop_flag() as asked:

        def after(result: StepResult) -> None:
            last_loss[result.task] = result.loss
            if result.loss != result.loss:
                raise UserError(
                    f"step {result.step}, task {result.task}: the loss is NaN; lower optimizer.lr or look at the data"
                )
            rate = result.samples / max(result.seconds, 1e-9)
            bar.set_postfix_str(f"{result.task} loss {result.loss:.3f} {rate:.0f} samples/s", refresh=False)
            bar.update()
            log.write(
                result.step,
                result.task,
                loss=result.loss,
                gradient_norm=result.gradient_norm,
                lr=result.lr,
                samples_per_second=rate,
                seconds=result.seconds,
                waited=result.waited,
            )
            done = result.step + 1
            every = recipe.checkpoint.every
            if asked or done == recipe.steps or (every and done % every == 0):
                log.flush()
                checkpoint.save(out, done, engine, recipe_json, recipe.checkpoint.keep)
            if asked and done < recipe.steps:
                raise Interrupted(done)

        try:
            train(
                engine,
                loader(steps, first, recipe.steps, recipe.workers, pin=engine.device.type == "cuda"),
                tasks,
                schedule,
                first,
                recipe.steps,
                recipe.optimizer.lr,
                recipe.optimizer.warmup,
                recipe.engine.accumulate,
                after,
            )
        finally:
            bar.close()
            log.close()


def save_model(prepared: Prepared, model: Any, out: Path) -> Path:
    """The Hugging Face folder: config, safetensors, processor and tokenizer files; replaced as a whole."""
    folder, partial = out / "model", out / "model.partial"
    import shutil

    try:
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        prepared.processor().save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); free disk space or choose another --out") from error
    return folder


def evaluate_run(
    recipe: Recipe, prepared: Prepared, objective: Objective, out: Path, quiet: bool = False, train_seconds: float = 0.0
) -> dict[str, Any]:
    """Held-out results of every task beside an ordinary baseline; writes metrics.json, predictions.json, space.npz."""
    began = time.time()
    lines, predictions, everything = {}, {}, []
    for task in tqdm(list(prepared.tasks.values()), desc="evaluate", unit="task", disable=quiet, file=sys.stderr):
        test = task.source.open("test")
        answers = evaluate.answer(task, test, objective)
        lines[task.name] = evaluate.row(answers, task.baseline(prepared.records[task.name], task.source.open("val"), test))
        predictions[task.name] = evaluate.samples(answers)
        everything.append(answers)
    metrics = {
        "tasks": lines,
        "seconds": {"train": round(train_seconds, 1), "evaluate": round(time.time() - began, 1)},
        "steps": recipe.steps,
        "parameters": sum(p.numel() for p in objective.parameters()),
    }
    write_json(out / "metrics.json", metrics)
    write_json(out / "predictions.json", {"tasks": predictions})
    np.savez_compressed(out / "space.npz", **evaluate.space(everything))
    return metrics


def write_json(path: Path, value: Any) -> None:
    """Written aside and renamed: never half a file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1, allow_nan=True))
    os.replace(partial, path)


def load_run(run: Path) -> tuple[Recipe, Prepared, Objective]:
    """A finished run's recipe, parts and trained model. UserError when the folder is not a run."""
    from generalist.model import GeneralistModel
    from generalist.prepare import restore
    from generalist.processor import GeneralistProcessor

    if not (run / "recipe.json").is_file():
        raise UserError(f"{run} is not a run folder (no recipe.json); give the folder that generalist train wrote")
    if not (run / "model" / "config.json").is_file():
        raise UserError(f"{run} holds no finished model; go on with generalist train ... --resume")
    recipe = from_json(json.loads((run / "recipe.json").read_text()))
    model = GeneralistModel.from_pretrained(run / "model").eval()
    prepared = restore(recipe, GeneralistProcessor.from_pretrained(run / "model"))
    return recipe, prepared, Objective(model, prepared.sets, prepared.modalities)


def table(metrics: dict[str, Any]) -> str:
    """The results as a text table."""
    head = ("task", "metric", "value", "chance", "baseline", "", "n", "")
    rows = [head]
    for name, line in metrics["tasks"].items():
        reached = evaluate.reaches(line)
        mark = {True: "reached", False: "not reached", None: ""}[reached]
        number = [("-" if line[k] is None else f"{line[k]:.3g}") for k in ("value", "chance", "baseline")]
        arrow = "higher" if line["higher_is_better"] else "lower"
        note = "synthetic" if line["synthetic"] else "real"
        rows.append(
            (name, f"{line['metric']} ({arrow})", *number, f"{line['baseline_name']}: {mark}", str(line["n_test"]), note)
        )
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
