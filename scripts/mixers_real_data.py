"""Mixers on real data at equal processor time: what each reaches where attention stands beside it.

    python -m scripts.mixers_real_data DATA                         # three seeds of everything: an hour
    python -m scripts.mixers_real_data DATA --sets cifar10 --seeds 0
    python -m scripts.mixers_real_data --table --write              # what is kept, in the page of published systems

One seed of every set comes first, then the next. Each cell trains for `--seconds` of processor time of one thread, its
learning rate following the time used, so a quicker mixer sees more samples; evaluation is not counted. Cells are kept
in scripts/bench_results/mixers_real_data.json one by one: a stopped command goes on where it was.

cifar10     6,000 pictures, 64 patches of 4 px; 2,000 to test
etth1       horizon 96, all 2,785 test windows x 7, each column alone or all at once; the best of six validated states
esc10       10 s of sound: two clips of a class and fold joined, 998 tokens of 10 ms; fold 4 to test
watch       4,096 steps of a wrist: recordings of one exercise joined, a token a step; two unseen persons to test
digits      8 epochs (retention 16) of a plain network of the mixer, 4 layers, 64 cells (`scripts.systems_digits`)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch

from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps, loader
from generalist.evaluate import answer as evaluate
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.scripts import systems_digits
from generalist.scripts.mixers_sets import LOOKS, SETS
from generalist.scripts.tables import columns
from generalist.train.optimizer import learning_rate, parameter_groups
from generalist.train.prepare import prepare

RESULT = Path(__file__).parent / "bench_results" / "mixers_real_data.json"
PAGE = Path(__file__).parents[1] / "generalist/nn/mixers/README.md"
MARK, END = "<!-- measured -->", "<!-- end of measured -->"
SECONDS, ENDLESS = 75.0, 100_000  # of training a cell; steps that no cell reaches


def trained(made: Recipe, seconds: float, looks: int) -> dict[str, Any]:
    """The test metrics of a recipe's one task after so many seconds of training. looks: how often validation data is
    looked at, the best state being kept; 0 = never, the last one is."""
    torch.manual_seed(made.seed)
    prepared = prepare(made)
    ((name, task),) = prepared.tasks.items()
    objective = Objective(prepared.model(made), prepared.sets, prepared.modalities)
    spec = made.optimizer
    optimizer = torch.optim.AdamW(parameter_groups(objective, spec.weight_decay), spec.lr, spec.betas)
    batches = loader(Steps(prepared.feeds(), Schedule([name], [1.0]), made.seed), 0, ENDLESS)
    best: tuple[float, dict[str, Any]] = (float("inf"), {})
    used, steps, looked = 0.0, 0, 0
    while used < seconds:
        began = time.process_time()
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * max(0.05, learning_rate(int(1000 * used / seconds), 1000, 50))
        objective.train()
        loss = objective(batch).sum() / batch.count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), spec.clip or 1.0)
        optimizer.step()
        used, steps = used + time.process_time() - began, steps + 1
        if looks and used >= seconds * (looked + 1) / looks:
            looked += 1
            misfit = float(measured(task, task.open("val").spread(300), objective)["mse"])
            if misfit < best[0]:
                best = (misfit, {k: v.clone() for k, v in objective.state_dict().items()})
    if looks:
        objective.load_state_dict(best[1])
    parameters = sum(p.numel() for p in objective.model.encoder.parameters())
    found = measured(task, task.open("test"), objective)
    return {"metrics": found, "steps": steps, "samples": steps * task.batch, "encoder parameters": parameters}


def measured(task: Any, records: Records, objective: Objective) -> dict[str, float]:
    return {name: float(v) for name, v in evaluate.answer(task, records, objective).metrics.items()}


def cells(data: Path | None, sets: list[str], seeds: list[int], seconds: float) -> dict[str, Callable[[], dict]]:
    """What there is to measure, by its key "set/variant/seed", one seed of everything first."""
    found: dict[str, Callable[[], dict]] = {}
    for seed in seeds:
        for name in sets:
            if name == "digits":
                for kind in systems_digits.EVERY:
                    found[f"digits/{kind}/{seed}"] = partial(digits, kind, seed)
                continue
            for variant in SETS[name].variants:

                def run(name: str = name, variant: str = variant, seed: int = seed) -> dict[str, Any]:
                    assert data is not None
                    return trained(SETS[name].recipe(data, variant, seed), seconds, LOOKS.get(name, 0))

                found[f"{name}/{variant}/{seed}"] = run
    return found


def digits(kind: str, seed: int) -> dict[str, Any]:
    accuracy, parameters, _ = systems_digits.trained(kind, systems_digits.EPOCHS.get(kind, 8), seed)
    return {"metrics": {"accuracy": accuracy}, "parameters": parameters, "asked": systems_digits.ASKED.get(kind)}


def rows(kept: dict[str, Any]) -> list[tuple[str, ...]]:
    """Mean and spread over the seeds of every set and variant."""
    found: list[tuple[str, ...]] = [("set", "mixers", "metric", "mean", "spread", "seeds", "samples seen", "asked")]
    for name in dict.fromkeys(key.rpartition("/")[0] for key in kept):
        own = [kept[key] for key in kept if key.rpartition("/")[0] == name]
        metric = "mse" if "mse" in own[0]["metrics"] else "accuracy"
        values = [cell["metrics"][metric] for cell in own]
        seen = "" if "samples" not in own[0] else f"{mean(cell['samples'] for cell in own):,.0f}"
        place, _, variant = name.partition("/")
        asked = f"{own[0]['asked']:.2f}" if own[0].get("asked") else ""
        line = (place, variant, metric, f"{mean(values):.3f}", f"{pstdev(values):.3f}", str(len(own)), seen, asked)
        found.append(line)
    return found


def markdown(kept: dict[str, Any]) -> str:
    head, *lines = rows(kept)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *lines))


def written(kept: dict[str, Any]) -> None:
    """The table between its marks on the page of the published systems."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{MARK}\n{markdown(kept)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    every = ["digits", *SETS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets; not needed for digits")
    parser.add_argument("--sets", nargs="*", choices=every, default=every)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of processor time a cell")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only print what is kept")
    parser.add_argument("--write", action="store_true", help="renew the table of generalist/nn/mixers/README.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    if not args.table:
        if args.data is None and args.sets != ["digits"]:
            parser.error("give the folder of the sets, or --sets digits")
        for key, run in cells(args.data, args.sets, args.seeds, args.seconds).items():
            if key in kept:
                continue
            kept[key] = run() | ({} if key.startswith("digits/") else {"seconds": args.seconds})
            args.out.write_text(json.dumps(kept, indent=1) + "\n")
            print(key, json.dumps(kept[key]), flush=True)
    print(columns(rows(kept)))
    if args.write:
        written(kept)


if __name__ == "__main__":
    main()
