"""What little data is worth: a model that never saw a handwritten digit, adapted with 1, 2, 5, 10 and 100 % of them.

    python -m scripts.adaptation --out runs/adaptation         # no data needed

Pre-training: characters in fonts against their Unicode names, retrieval both ways, and nothing else. Then handwritten
digits, named "digit zero" to "digit nine" as the characters are: zero-shot by name, and prompt tuning, linear probe,
LoRA and full fine-tuning over the curve, several seeded draws each (`generalist tune --curve`). The published order is
zero-shot < 1 % prompt tuning < full tuning (Uni-Perceiver, 2112.01522); the script says whether it shows.

Measured with --steps 800 --tuning-steps 80 (seed 0, two draws, 359 test digits; mean accuracy, spread .00 to .10):

                1 %    2 %    5 %   10 %  100 %     trained
    prompts    .539   .550   .586   .546   .585       5,291
    probe      .504   .592   .695   .741   .873         970
    LoRA       .554   .606   .699   .710   .698      36,864
    full       .613   .652   .783   .765   .812     468,386    zero-shot .106

80 steps are two passes over all the digits: what trains by steps is not at its end there, what is solved (probe) is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from data.embedded import Embedded
from generalist.cli import main as generalist
from generalist.recipe import CheckpointSpec, ModelSpec, OptimizerSpec, Recipe
from generalist.run import train_run
from tasks.retrieve import Retrieve
from tokenizers_mod.image import Image
from tokenizers_mod.summary import Summary
from tokenizers_mod.text import Text

METHODS = ("zero-shot", "prompts", "probe", "lora", "full")


def recipe(steps: int, seed: int) -> Recipe:
    """Characters and their names."""
    return Recipe(
        name="adaptation",
        about="characters in fonts and their Unicode names",
        steps=steps,
        seed=seed,
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=800, max_length=48, positions=48),
            "image": Image(size=24, patch=12, shift=2, mean=0.0, std=0.3, stem=16),
        },
        tasks=[Retrieve(name="glyphs", source=Embedded("glyphs"), inputs={"image": "image"}, batch=64)],
        model=ModelSpec(width=96, layers=3, heads=4, hidden=384, embedding_norm=False),
        optimizer=OptimizerSpec(lr=1e-3, warmup=min(50, steps // 10 + 1), weight_decay=0.05),
        checkpoint=CheckpointSpec(every=steps, keep=1),
    )


def shape(lines: list[dict[str, Any]]) -> str:
    """One sentence: does zero-shot < 1 % prompt tuning < full tuning hold in these lines of `tuning.json`?"""
    found = {(line["method"], line["fraction"]): line["accuracy"] for line in lines}
    first = next(accuracy for (method, _), accuracy in found.items() if method == "zero-shot")
    few, all_of_it = found["prompts", 0.01], found["full", 1.0]
    holds = first < few < all_of_it
    return (
        f"zero-shot {first:.3f}, 1 % prompt tuning {few:.3f}, full tuning {all_of_it:.3f}: "
        f"the published order {'shows' if holds else 'does not show'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of pre-training")
    parser.add_argument("--tuning-steps", type=int, default=150)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = args.out / f"base_{args.seed}"
    if not (base / "model").is_dir():
        train_run(recipe(args.steps, args.seed), base, overwrite=True, quiet=True)
    names = [f"digit {name}" for name in Embedded("digits").open("train").info["classes"]]
    words = ["tune", str(base), "embedded:digits", "--classes", *names, "--method", *METHODS, "--curve"]
    words += ["--draws", str(args.draws), "--steps", str(args.tuning_steps), "--seed", str(args.seed)]
    tuned = args.out / f"digits_{args.seed}"
    if code := generalist([*words, "--out", str(tuned)]):
        raise SystemExit(code)
    print(shape(json.loads((tuned / "tuning.json").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
