"""What the starter knows and what it is worth, beside an encoder of random weights: the table of its card.

    python -m scripts.starter_table DATA SETS                       # all of it, hours on one core
    python -m scripts.starter_table DATA SETS --only unseen probe   # parts: ordinary unseen probe tuned
    python -m scripts.starter_table DATA SETS --model RUN           # other weights

DATA: the folder that `scripts.starter_data` wrote; SETS: the folder of sets that is transferred to. Lines are written
to scripts/bench_results/starter.json as they are measured. Two controls have the same sizes: `random` has learnt
nothing, `begun` is the model as its training began, with what its picture network learnt elsewhere.

unseen    no weight is changed: names of icon sets by draughtsmen that training never saw, emoji, glyphs, digits, a
          sound never heard, pairs of modalities that met through words only
probe     a linear probe on frozen features at 1, 2, 5, 10 and 100 % of the labels
tuned     prompts, LoRA and all weights, the same shares (--share picks some); this is hours
ordinary  ridge regression from oriented gradients to TF-IDF of the names, beside the first lines of `unseen`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.predict import load
from generalist.hf.saved import weights_hash
from scripts.starter_card import RESULTS, table
from scripts.starter_ordinary import ordinary
from scripts.starter_transfer import NAMED, SHARES, begun, fresh, probed, tuned
from scripts.starter_unseen import unseen

PARTS = ("ordinary", "unseen", "probe", "tuned")
SIDES: dict[str, Callable[[GeneralistModel], GeneralistModel]] = {
    "random": fresh,
    "begun": begun,
    "starter": lambda model: model,
}


def taken(measured: dict[str, Any], side: str, found: Iterable[dict[str, Any]], save: Callable[[], None]) -> None:
    """Put lines of one side into the table, a line of the same name in the place of the earlier one."""
    for line in found:
        key = (line["what"], line["measure"])
        held = next((old for old in measured["lines"] if (old["what"], old["measure"]) == key), None)
        if held is None:
            held = {"what": line["what"], "measure": line["measure"]}
            measured["lines"].append(held)
        held[side] = line["value"]
        if "chance" in line:
            held["chance"] = line["chance"]
        save()
        print(f"{side:<8} {line['what']:<40} {line['measure']:<14} {line['value']}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--on", nargs="+", choices=NAMED, default=NAMED, help="sets of the parts `probe` and `tuned`")
    parser.add_argument("--share", nargs="+", type=float, default=SHARES, help="of the labels, in the part `tuned`")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model, processor = load(args.model)
    measured = json.loads(args.out.read_text()) if args.out.is_file() else {"lines": [], "notes": []}

    def save() -> None:
        args.out.write_text(json.dumps(measured, indent=1) + "\n")

    if "ordinary" in args.only:
        taken(measured, "ordinary", ordinary(args.data), save)
    for side in args.side:
        asked = SIDES[side](model)
        parts: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
            "unseen": partial(unseen, asked, args.data),
            "probe": partial(probed, asked, processor.built, args.sets, args.on),
            "tuned": partial(tuned, asked, processor.built, args.sets, args.on, args.share),
        }
        for name, part in parts.items():
            if name in args.only:
                taken(measured, side, part(), save)
        if side == "starter":
            measured["weights"] = weights_hash(model.state_dict())
            save()
    print(table(measured))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"starter_table: {error}")
