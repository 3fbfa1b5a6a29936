"""What little data is worth: a model that never saw the set, adapted with 1, 2, 5, 10 and 100 % of it.

    python -m scripts.adaptation --out runs/adaptation                      # handwritten digits; no data needed
    python -m scripts.adaptation spoken --data FOLDER --out runs/adaptation # spoken digits

digits    pre-training: characters in fonts against their Unicode names, retrieval both ways, and nothing else. Then
          handwritten digits, named "digit zero" to "digit nine" as the characters are.
spoken    pre-training: the sounds of ESC-10 (dogs, rain, clocks ...) and generated tones by name, no speech at all.
          Then the digits that six people say (FSDD, 600 clips to train on, 300 to test).

Each: zero-shot by name, and prompt tuning, linear probe, LoRA and full fine-tuning over the curve, several seeded draws
(`generalist tune --curve`). The published order is zero-shot < 1 % prompt tuning < full tuning (Uni-Perceiver,
2112.01522); the script says whether it shows.

Measured with --control --draws 3 (seed 0, draws 0, 1, 2; mean accuracy). "random" is the line above it on an encoder of
random weights, for the methods that hold the encoder fixed. With their spreads: scripts/bench_results.

digits, --steps 800 --tuning-steps 80 (359 test digits, zero-shot .109):

                  1 %    2 %    5 %   10 %  100 %     trained
    prompts     .445   .542   .590   .604   .538       5,291
      random    .524   .582   .636   .623   .545
    probe       .512   .576   .702   .762   .907         970
      random    .553   .617   .711   .769   .903
    LoRA        .549   .596   .684   .701   .682      36,864
      random    .556   .654   .707   .720   .677
    full        .590   .666   .782   .789   .809     468,386

80 steps are two passes over all the digits: what trains by steps is not at its end there, what is solved (probe) is.

spoken, --steps 600 --tuning-steps 80 (300 test clips, zero-shot .120):

                  1 %    2 %    5 %   10 %  100 %     trained
    prompts     .190   .310   .392   .474   .504       5,291
      random    .264   .381   .486   .636   .761
    probe       .241   .297   .382   .486   .838         970
      random    .272   .390   .493   .620   .878
    LoRA        .219   .301   .406   .494   .590      36,864
      random    .259   .388   .519   .630   .881
    full        .246   .329   .503   .629   .817     415,202

What is learnt from glyphs, or from 240 recordings and tones, does not carry over: the random encoder does as well or
better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from generalist.cli import main as generalist
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.local import Arrays
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

METHODS = ("zero-shot", "prompts", "probe", "lora", "full")


@dataclass(frozen=True)
class Experiment:
    """base: steps, seed, folder of data -> the pre-training; data: that folder, --out -> what `tune` is given."""

    base: Callable[[int, int, Path], Recipe]
    data: Callable[[Path, Path], list[str]]


def recipe(steps: int, seed: int, modality: dict[str, Any], tasks: list[Any], about: str) -> Recipe:
    """Three layers of width 96 on these tasks."""
    return Recipe(
        name="adaptation",
        about=about,
        steps=steps,
        seed=seed,
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=800, max_length=48, positions=48),
            **modality,
        },
        tasks=tasks,
        model=ModelSpec(width=96, layers=3, heads=4, hidden=384, embedding_norm=False),
        optimizer=OptimizerSpec(lr=1e-3, warmup=min(50, steps // 10 + 1), weight_decay=0.05),
        checkpoint=CheckpointSpec(every=steps, keep=1),
    )


def characters(steps: int, seed: int, folder: Path) -> Recipe:
    """Characters and their names."""
    image = Image(size=24, patch=12, channels=1, shift=2, mean=0.0, std=0.3, stem=16)
    glyphs = Retrieve(name="glyphs", source=Embedded("glyphs"), inputs={"image": "image"}, batch=64)
    return recipe(steps, seed, {"image": image}, [glyphs], "characters in fonts and their Unicode names")


def handwritten(folder: Path, out: Path) -> list[str]:
    names = [f"digit {name}" for name in Embedded("digits").open("train").info["classes"]]
    return ["embedded:digits", "--classes", *names]


def sounds(steps: int, seed: int, folder: Path) -> Recipe:
    """Sounds by name: 240 recordings and 4000 generated tones, nobody speaks."""
    audio = Audio(rate=8000, mels=40, patch=[40, 8], stride=[40, 8], mean=-6.0, std=2.0, max_seconds=4.0)
    real = Arrays(
        str(folder / "esc10_audio" / "meta.csv"),
        {"audio": "sound:file", "label": "label_name"},
        fold="fold",
        test_fold=4,
        classes="label_name",
    )
    tasks = [
        Classify(name="esc10", source=real, inputs={"audio": "audio"}, batch=24),
        Classify(name="tones", source=Embedded("tones"), inputs={"audio": "audio"}, batch=48),
    ]
    return recipe(steps, seed, {"audio": audio}, tasks, "sounds of the surroundings and generated tones by name")


SPOKEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def spoken(folder: Path, out: Path) -> list[str]:
    """The clips as the folder of .wav files by class that anybody would have."""
    import soundfile

    home = out / "spoken_digits"
    for split in ("train", "test"):
        source = Arrays(
            str(folder / "fsdd_audio" / "fsdd_{split}.npz"),
            {"audio": {"array": "audio@offsets", "sampling_rate": "sample_rate"}, "label": "label"},
            names={"train": "train", "val": "test", "test": "test"},  # nothing is set aside
        )
        row: Any
        records = source.open(split)
        for i, row in enumerate(map(records.__getitem__, range(len(records)))):
            file = home / split / SPOKEN[int(row["label"])] / f"{i}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.is_file():
                soundfile.write(file, row["audio"]["array"], int(row["audio"]["sampling_rate"]))
    return [str(home), "--input", "audio"]


EXPERIMENTS = {"digits": Experiment(characters, handwritten), "spoken": Experiment(sounds, spoken)}


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
    parser.add_argument("experiment", nargs="?", default="digits", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of fsdd_audio and esc10_audio")
    parser.add_argument("--steps", type=int, default=1000, help="of pre-training")
    parser.add_argument("--tuning-steps", type=int, default=150)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--control", action="store_true", help="frozen methods on a random encoder too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    experiment = EXPERIMENTS[args.experiment]
    base = args.out / f"base_{args.experiment}_{args.seed}"
    if not (base / "model").is_dir():
        train_run(experiment.base(args.steps, args.seed, args.data), base, overwrite=True, quiet=True)
    words = ["tune", str(base), *experiment.data(args.data, args.out), "--method", *METHODS, "--curve"]
    words += ["--control"] if args.control else []
    words += ["--draws", str(args.draws), "--steps", str(args.tuning_steps), "--seed", str(args.seed)]
    tuned = args.out / f"{args.experiment}_{args.seed}"
    if code := generalist([*words, "--out", str(tuned)]):
        raise SystemExit(code)
    print(shape(json.loads((tuned / "tuning.json").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
