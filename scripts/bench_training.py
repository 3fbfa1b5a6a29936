"""What the packing, DeepSpeed, many tasks in one run and torch.compile cost or save a step, as ratios; saving, too."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generalist.data.batch.types import Batch
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.machine import ranks
from generalist.model.objective import Objective
from generalist.recipe.json import to_json
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe
from generalist.recipe.recipe import Recipe
from generalist.run.results import exporter
from generalist.scripts.timing import Timing, alternate
from generalist.train.checkpoints.checkpoint import Saver
from generalist.train.engines.build import build_engine
from generalist.train.engines.compiled import compile_layers
from generalist.train.optimizer import build_optimizer
from generalist.train.prepare import Prepared, prepare

HERE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def line(what: str, against: str, timing: Timing, name: str, target: str, **more: Any) -> dict[str, Any]:
    """One result: the ratio of `name`'s time to that of the base."""
    low, middle, high = timing.ratios[name]
    found = {"what": what, "against": against, "ratio": middle, "quartiles": [low, high], "cpu_ratio": timing.cpu[name]}
    return found | {"target": target, "seconds": timing.seconds, **more}


# --- packed against padded ---


# --- the demo's training step in several ways ---


def demo(tasks: list[str] | None = None) -> tuple[Recipe, Prepared]:
    """The demo with a few of its tasks."""
    recipe = load_recipe("demo")
    recipe.tasks = [t for t in recipe.tasks if tasks is None or t.name in tasks]
    return recipe, prepare(recipe)


def batches(recipe: Recipe, prepared: Prepared, count: int) -> dict[str, list[Batch]]:
    """The first `count` batches of every task."""
    found: dict[str, list[Batch]] = {}
    for name, feed in prepared.feeds().items():
        one = Steps({name: feed}, Schedule([name], [1.0], recipe.seed), recipe.seed)
        found[name] = [one[i].to(HERE) for i in range(count)]
    return found


def objective(recipe: Recipe, prepared: Prepared) -> Objective:
    return Objective(prepared.model(recipe), prepared.sets, prepared.modalities).to(HERE)


def bare(recipe: Recipe, prepared: Prepared) -> Callable[[Batch], None]:
    """The least that a training step needs, written out."""
    model = objective(recipe, prepared)
    optimizer = build_optimizer(recipe, model)

    def run(batch: Batch) -> None:
        (model(batch) / batch.count).sum().backward()
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is None:  # balanced momentum decays for every parameter at every step
                    p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def through(recipe: Recipe, prepared: Prepared, kind: str) -> Callable[[Batch], None]:
    """The same step through an engine."""
    chosen = replace(recipe, engine=replace(recipe.engine, kind=kind))
    engine = build_engine(chosen, objective(recipe, prepared), HERE)

    def run(batch: Batch) -> None:
        engine.backward((engine.loss(batch) / batch.count).sum())
        engine.step(1e-4, 1.0, 1.0)

    return run


def engines(rounds: int) -> list[dict[str, Any]]:
    """DeepSpeed (ZeRO 1, one process) and the local engine against the bare loop, on the demo's digits.

    At the demo's own width an engine's fixed cost shows most; at width 384 what it costs a real model.
    """
    found = []
    ranks.join(HERE)
    try:
        for width in (96, 384):
            timing = engines_at(width, rounds)
            for name in ("local", "deepspeed"):
                what = f"{name} engine, a step of the demo's digits at width {width}"
                found.append(line(what, "bare loop", timing, name, "<= 1.05"))
    finally:
        ranks.leave()
    return found


def engines_at(width: int, rounds: int) -> Timing:
    recipe, prepared = demo(["digits"])
    override(recipe, f"model.width={width}")
    override(recipe, f"model.hidden={4 * width}")
    batch = batches(recipe, prepared, 1)["digits"][0]
    steps = {
        "bare loop": bare(recipe, prepared),
        "local": through(recipe, prepared, "local"),
        "deepspeed": through(recipe, prepared, "deepspeed"),
    }
    calls = {name: (lambda step=step: step(batch)) for name, step in steps.items()}
    return alternate(calls, base="bare loop", rounds=rounds)


def tasks_mixed(rounds: int) -> list[dict[str, Any]]:
    """The same batches of four tasks in turn (unmixed multi-task) against one task after the other, per token."""
    names = ["digits", "wine", "tones", "solids"]
    recipe, prepared = demo(names)
    step = bare(recipe, prepared)
    found = batches(recipe, prepared, 3)
    in_turn = [found[name][i] for i in range(3) for name in names]
    in_blocks = [found[name][i] for name in names for i in range(3)]
    timing = alternate(
        {
            "multi-task": lambda: [step(b) for b in in_turn],
            "single-task": lambda: [step(b) for b in in_blocks],
        },
        base="single-task",
        rounds=rounds,
    )
    tokens = sum(b.inputs.tokens for b in in_turn)
    more = {"tokens_per_second": tokens / timing.seconds["multi-task"]}
    what = "unmixed multi-task (4 tasks in turn), time a token"
    return [line(what, "single-task", timing, "multi-task", "<= 1.02", **more)]


def compiled(rounds: int) -> list[dict[str, Any]]:
    """engine.compile=true against false, and what the compiling takes."""
    recipe, prepared = demo(["digits"])
    override(recipe, "model.width=384")
    override(recipe, "model.hidden=1536")
    batch = batches(recipe, prepared, 1)["digits"][0]
    models: dict[str, nn.Module] = {name: objective(recipe, prepared) for name in ("eager", "compiled")}
    compile_layers(models["compiled"])

    def run(model: nn.Module) -> None:
        model.zero_grad(set_to_none=True)
        (model(batch) / batch.count).sum().backward()

    start = time.perf_counter()
    run(models["compiled"])
    seconds = time.perf_counter() - start
    calls = {name: (lambda model=model: run(model)) for name, model in models.items()}
    timing = alternate(calls, base="eager", rounds=rounds)
    what = f"engine.compile=true, width 384 (first step {seconds:.0f} s)"
    return [line(what, "eager", timing, "compiled", "measured")]


def saves(rounds: int) -> list[dict[str, Any]]:
    """How long a checkpoint holds the training up, and how long it takes: at once, and asynchronously.

    A round is one save of either kind; while the second is written, training steps go on. Medians over rounds.
    """
    recipe, prepared = demo(["digits"])
    for key in ("model.width=512", "model.hidden=2048", "model.layers=8"):
        override(recipe, key)
    model = objective(recipe, prepared)
    engine = build_engine(replace(recipe, engine=replace(recipe.engine, kind="local")), model, HERE)
    batch = batches(recipe, prepared, 1)["digits"][0]

    def step() -> None:
        engine.backward((engine.loss(batch) / batch.count).sum())
        engine.step(1e-4, 1.0, 1.0)

    write_model = exporter(prepared, model.model)
    taken: dict[str, list[float]] = {name: [] for name in ("plain", "at once", "held up", "whole", "steps")}
    with tempfile.TemporaryDirectory() as folder:
        savers = [
            Saver(Path(folder) / str(later), engine, to_json(recipe), 1, later, write_model) for later in (False, True)
        ]
        for number in range(1, rounds + 1):
            taken["plain"].append(timed(step))
            taken["at once"].append(timed(savers[0].save, number, []))
            begun = time.perf_counter()
            held = timed(savers[1].save, number, [])
            steps = 0
            while not savers[1].poll():
                step()
                steps += 1
            taken["held up"].append(held + timed(savers[1].finish))
            taken["whole"].append(time.perf_counter() - begun)
            taken["steps"].append(float(steps))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    size = sum(p.numel() for p in model.parameters()) / 1e6
    return [
        {"what": f"a checkpoint at once ({size:.0f} M parameters): training waits (s)", "seconds": middle["at once"]},
        {
            "what": "asynchronously: training waits (s); until it is whole (s); steps meanwhile; a step alone (s)",
            "seconds": middle["held up"],
            "whole": middle["whole"],
            "steps": middle["steps"],
            "step": middle["plain"],
        },
    ]


def timed(call: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def start_up() -> list[dict[str, Any]]:
    """Seconds from the command to the end of the demo's first training step, in a fresh process."""
    code = (
        "import time, sys; start = time.time()\n"
        "import generalist.run.attempt as attempt\n"
        "from generalist.run.train import train_run\n"
        "from pathlib import Path\n"
        "from generalist.recipe.load import load_recipe\n"
        "times = {'import': time.time() - start}\n"
        "recipe = load_recipe('demo')\n"
        "inner = attempt.train\n"
        "def train(*args, **more):\n"
        "    args = list(args)\n"
        "    args[9] = lambda result: (print('FIRST', time.time() - start, times['import']), sys.stdout.flush(), "
        "__import__('os')._exit(0))\n"
        "    return inner(*args, **more)\n"
        "attempt.train = train\n"
        "train_run(recipe, Path(sys.argv[1]), quiet=True)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=False, timeout=300
        )
    found = [text.split() for text in done.stdout.splitlines() if text.startswith("FIRST")]
    if not found:
        return [{"what": "start-up to the end of the first step", "failed": done.stderr.strip()[-300:]}]
    total, imports = float(found[0][1]), float(found[0][2])
    return [{"what": f"demo: start to the end of its first step (imports {imports:.1f} s)", "seconds": total}]


def folder() -> Path:
    return Path(__file__).with_name("bench_results")
