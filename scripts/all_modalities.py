"""One model on every set, each set alone with the same samples seen, and the ordinary baseline, side by side.

    python -m scripts.all_modalities DATA --steps 8000                 # joint and baseline
    python -m scripts.all_modalities DATA --steps 8000 --alone         # and every set alone
    python -m scripts.all_modalities DATA --only adult banking77       # some of the sets
    python -m scripts.all_modalities DATA --control                    # and with a frozen random encoder
    python -m scripts.all_modalities DATA seed=1 modalities.table.drop=0.1    # any key of the recipe

DATA is a folder of sets as `generalist/recipes/all_sets.py` describes them. Seeds are fixed; validation and
baselines' choices use validation data only. A finished part in --out is not run again, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.schedule import Schedule
from generalist.recipe.keys import override
from generalist.recipe.recipe import Recipe
from generalist.recipes.all_modalities import recipe
from generalist.run.train import train_run
from generalist.scripts.tables import columns
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.text.text import Text
from generalist.train.checkpoints.checkpoint import checkpoints


def trained(made: Recipe, out: Path) -> dict[str, Any]:
    """The metrics of a run, from its folder where it is finished."""
    if (out / "metrics.json").is_file():
        return json.loads((out / "metrics.json").read_text())
    return train_run(made, out, resume=bool(checkpoints(out)), quiet=True)


def chosen(data: Path, steps: int, only: list[str], frozen: bool = False, keys: Sequence[str] = ()) -> Recipe:
    """The recipe with only these tasks and the modalities that they need; keys: "key=value" of the recipe."""
    made = recipe(data, steps)
    override(made, *keys)
    names = [task.name for task in made.tasks]
    for name in only:
        if name not in names:
            raise UserError(f"no task {name!r}; {nearest(name, names)}")
    made.tasks = [task for task in made.tasks if not only or task.name in only]
    used = {m for task in made.tasks for m in [*task.inputs, *getattr(task, "partners", {})]}
    used |= {task.slot for task in made.tasks if isinstance(task, Forecast)}
    kept = used | {"summary", "text", "number"}
    made.modalities = {name: modality for name, modality in made.modalities.items() if name in kept}
    if all(task.line_kind == "numbers" for task in made.tasks):  # no text to learn pieces from, and none is read
        made.modalities["text"] = Text(tokenizer="clip")
    made.model.freeze = "encoder" if frozen else "nothing"
    return made


def samples_alone(data: Path, steps: int, only: list[str]) -> dict[str, int]:
    """How many steps of the joint run each task gets."""
    made = chosen(data, steps, only)
    schedule = Schedule([t.name for t in made.tasks], [t.share for t in made.tasks], made.seed)
    return {task.name: max(1, schedule.draws_before(steps, task.name)) for task in made.tasks}


def row(name: str, parts: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    line = parts["joint"]["tasks"][name]
    cells = [
        f"{parts[part]['tasks'][name]['value']:.3f}" if part in parts else "-" for part in ("joint", "alone", "control")
    ]
    base = "-" if line["baseline"] is None else f"{line['baseline']:.3f}"
    arrow = "up" if line["higher_is_better"] else "down"
    return (name, f"{line['metric']} ({arrow})", *cells, base, line["baseline_name"], str(line["n_test"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="keys of the recipe, as in `generalist train`")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--alone", action="store_true", help="also train every set alone, with the same samples seen")
    parser.add_argument("--control", action="store_true", help="also train with the encoder frozen as drawn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/all_modalities"))
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    out = args.out
    parts = {"joint": trained(chosen(args.data, args.steps, args.only, keys=args.keys), out / "joint")}
    if args.control:
        parts["control"] = trained(
            chosen(args.data, args.steps, args.only, frozen=True, keys=args.keys), out / "control"
        )
    if args.alone:
        lines: dict[str, Any] = {}
        for name, steps in samples_alone(args.data, args.steps, args.only).items():
            lines |= trained(chosen(args.data, steps, [name], keys=args.keys), out / "alone" / name)["tasks"]
        parts["alone"] = {"tasks": lines}
    head = ("task", "metric", "joint", "alone", "random encoder", "baseline", "which", "test")
    print(columns([head, *(row(name, parts) for name in parts["joint"]["tasks"])]))


if __name__ == "__main__":
    main()
