"""What every rank of a test does, under torchrun: `ranks_worker.py FOLDER PLAN.json`; results in FOLDER/rank-R.json.

The plan is a list of {"name", "keys": recipe keys, "steps", "stop", "load", "save"}; all of it runs in one pair of
processes, because starting them costs more than the steps.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from tiny import tiny  # noqa: E402

from generalist.data.stream.schedule import Schedule  # noqa: E402
from generalist.data.stream.stream import Steps, loader  # noqa: E402
from generalist.machine import ranks  # noqa: E402
from generalist.model.objective import Objective  # noqa: E402
from generalist.recipe.json import to_json  # noqa: E402
from generalist.run.results import exporter  # noqa: E402
from generalist.train.checkpoints import checkpoint  # noqa: E402
from generalist.train.engines.build import build_engine, needs_group  # noqa: E402
from generalist.train.loop import StepResult, train  # noqa: E402
from generalist.train.methods.table import build_method  # noqa: E402
from generalist.train.prepare import prepare  # noqa: E402


class Stop(Exception):
    """The run is cut here."""


def curve(keys: dict, steps: int, stop: int = 0, load: str = "", save: str = "") -> dict:
    """Losses, norms, tasks and weights of a run of `steps`, cut after `stop`; load and save are run folders."""
    recipe, first = tiny(**keys), 0
    as_given = to_json(recipe)
    if needs_group(recipe):
        ranks.join(torch.device("cpu"), 2.0)
    prepared = prepare(recipe)
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    method = build_method(recipe, objective)
    engine = build_engine(recipe, objective, torch.device("cpu"))
    torch.manual_seed(recipe.seed + 1 + engine.rank)
    if load:
        first, folder = checkpoint.latest(Path(load))
        engine.load(folder)
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed, recipe.sampling == "mixed")
    stream = Steps(prepared.feeds(), schedule, recipe.seed, engine.rank, engine.world, recipe.engine.accumulate)
    results: list = []
    spec = recipe.optimizer
    accumulate = recipe.engine.accumulate
    batches = loader(stream, first, steps)

    def after(result: StepResult) -> None:
        results.append(result)
        if result.step + 1 == stop:
            raise Stop

    with suppress(Stop):
        train(engine, batches, tasks, schedule, first, steps, spec.lr, spec.warmup, accumulate, after, method=method)
    weights = engine.weights()
    if save:
        asynchronous = recipe.checkpoint.asynchronous
        saver = checkpoint.Saver(Path(save), engine, as_given, 2, asynchronous, exporter(prepared, objective.model))
        saver.save(stop or steps, [])
        saver.finish()
    return {
        "loss": [r.loss for r in results],
        "added": [r.added for r in results],
        "norm": [r.gradient_norm for r in results],
        "task": [r.task for r in results],
        "weights": {name: value.double().flatten().tolist() for name, value in weights.items()},
    }


def main(folder: Path, plan: list[dict]) -> None:
    torch.set_num_threads(1)
    out = {}
    for job in plan:
        name = job.pop("name")
        torch.use_deterministic_algorithms(job.pop("poisoned", False), warn_only=True)  # fills fresh memory with NaN
        try:
            out[name] = curve(**job)
        except Exception as error:
            out[name] = {"error": f"{type(error).__name__}: {error}"}
    (folder / f"rank-{ranks.rank()}.json").write_text(json.dumps(out))
    ranks.barrier()
    ranks.leave()
    ranks.end(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
