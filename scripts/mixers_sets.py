"""The sets and variants of `scripts.mixers_real_data`: a recipe each, of one task and a small encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from generalist.data.media.sounds import read_sound
from generalist.data.sources.windows import Windows
from generalist.data.sources.windows_joint import JointWindows
from generalist.data.stream.source import Record, Records
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.recipes.sensed_sets import pictures
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers.imu import Imu
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.numbers.variates import Variates
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

ROWS = {"train": [0, 8640], "val": [8640, 11520], "test": [11520, 14400]}  # ETTh1's hours
HORIZON, RATE = 96, 8000
LOOKS = {"etth1": 6}  # how often validation data is looked at in a cell; never where not said


class Set(NamedTuple):
    variants: tuple[str, ...]
    recipe: Callable[[Path, str, int], Recipe]


@dataclass
class Held:
    """Records in memory, split by split."""

    splits: dict[str, list[Record]]
    info: dict[str, Any] = field(default_factory=dict)

    def open(self, split: str) -> Records:
        return Records(self.splits[split], dict(self.info))


def made(name: str, seed: int, task: Task, modalities: dict[str, Modality], model: ModelSpec, lr: float) -> Recipe:
    text = Text() if isinstance(task, Forecast) else Text(tokenizer="", learn=300, max_length=8)
    words: dict[str, Modality] = {"summary": Summary(), "text": text}
    return Recipe(
        name=name,
        about=f"mixers on {name}",
        steps=1,
        seed=seed,
        modalities=words | modalities,
        tasks=[task],
        model=model,
        optimizer=OptimizerSpec(kind="adamw", lr=lr, weight_decay=0.05, clip=1.0),
    )


# --- pictures ---

CIFAR: dict[str, dict[str, Any]] = {
    "attention": {},
    "hybrid": {"mixers": ["convolution", "convolution", "attention", "attention"]},
    "local": {"local": 5},
    "decay_attention": {"mixers": "decay_attention"},
    "window": {"mixers": ["window", "window", "attention", "attention"]},
}


def cifar10(data: Path, variant: str, seed: int) -> Recipe:
    """Patches of 4 px; two layers of windows or convolutions stand under two of attention."""
    task = {task.name: task for task in pictures(data)}["cifar10"]
    image = Image(size=32, patch=4, channels=3, mean=0.45, std=0.27, shift=2)
    model = ModelSpec(width=96, layers=4, heads=4, hidden=384, embedding_norm=False, **CIFAR[variant])
    return made("cifar10", seed, task, {"image": image}, model, 1e-3)


# --- forecasts ---


def etth1(data: Path, variant: str, seed: int) -> Recipe:
    """alone: patches of one column behind future slots; joint: a token a column; both: the columns' patches beside."""
    place = str(data / "etth1/ETTh1.csv.gz")
    shared: dict[str, Any] = {"horizon": HORIZON, "bins": 128, "auxiliary": 1.0, "units": "data"}
    model = ModelSpec(width=64, layers=2, heads=4, hidden=128, embedding_norm=False)
    modalities: dict[str, Modality] = {"number": Number()}
    if variant == "alone":
        source = Windows(place, ROWS, 512, HORIZON)
        modalities |= {"series": Series(), "slot": Slot(recent=512)}
        return made(variant, seed, Forecast(name="etth1", source=source, batch=128, **shared), modalities, model, 2e-3)
    modalities |= {"variates": Variates(context=CONTEXT, horizon=HORIZON)}
    modalities |= {"series": Series(channels=7)} if variant == "both" else {}
    inputs = dict.fromkeys(list(modalities)[1:], "past")
    joint = JointWindows(place, ROWS, CONTEXT, HORIZON)
    task = Forecast(name="etth1", source=joint, inputs=inputs, joint=True, batch=32, **shared)
    return made(variant, seed, task, modalities, model, 1e-3)


CONTEXT = 96  # of variates, as published

# --- long lines of tokens ---

LONG: dict[str, dict[str, Any]] = {
    "attention": {},
    "retention": {"mixers": "retention"},
    "hyena": {"mixers": [{"kind": "hyena", "direction": "seq"}, "hyena"]},
}


def joined(parts: list[tuple[str, str, np.ndarray]], steps: int) -> list[Record]:
    """From every recording on, the next ones of its group and class one behind the other, `steps` in all. parts:
    (group, class, values [t, ...])."""
    found = []
    for first, (group, label, _) in enumerate(parts):
        own = [v for g, k, v in parts[first:] + parts[:first] if (g, k) == (group, label)]
        whole = own[0]
        for number in range(1, 1 + steps // max(1, min(len(v) for v in own))):
            if len(whole) >= steps:
                break
            whole = np.concatenate([whole, own[number % len(own)]])
        found.append({"id": f"{group}/{first}", "values": whole[:steps], "label": label})
    return found


@cache
def sounds(data: Path) -> Held:
    """Ten seconds each; folds 1 and 2 and 3 to learn, 4 to test."""
    import pandas as pd

    rows = pd.read_csv(data / "esc10_audio/meta.csv").to_dict("records")
    parts = []
    for row in rows:
        values, rate = read_sound(data / "esc10_audio" / row["file"])
        mono = np.asarray(values, dtype=np.float32)
        mono = mono if mono.ndim == 1 else mono.mean(int(np.argmin(mono.shape)))
        parts.append((str(row["fold"]), row["label_name"], mono))
    found = joined(parts, 10 * rate)  # all are of one rate
    for record in found:
        record["values"] = {"array": record["values"], "sampling_rate": rate}
    test = [record for record in found if record["id"].startswith("4/")]
    rest = [record for record in found if not record["id"].startswith("4/")]
    classes = sorted({row["label_name"] for row in rows})
    return Held({"train": rest, "val": test, "test": test}, {"classes": classes})


@cache
def wrist(data: Path) -> Held:
    """4,096 steps each at 50 Hz: six persons to learn, two others to test."""
    splits = {}
    for split in ("train", "test"):
        own = np.load(data / f"watch_imu/watch_{split}.npz")
        bounds, names = own["offsets"], own["class_names"].tolist()
        labels = own["label"].tolist()
        parts = [
            (split, names[label], own["signal"][a:b].astype(np.float32))
            for label, a, b in zip(labels, bounds, bounds[1:], strict=False)
        ]
        splits[split] = joined(parts, 4096)
    return Held(splits | {"val": splits["test"]}, {"classes": names})


def long(name: str, source: Held, modality: Modality, batch: int, width: int, variant: str, seed: int) -> Recipe:
    task = Classify(name=name, inputs={name: "values"}, source=source, batch=batch, smoothing=0.05)
    model = ModelSpec(
        width=width, layers=2, heads=4, hidden=2 * width, embedding_norm=False, readout="mean", **LONG[variant]
    )
    return made(name, seed, task, {name: modality}, model, 2e-3)


def esc10(data: Path, variant: str, seed: int) -> Recipe:
    audio = Audio(rate=RATE, mels=40, patch=[40, 1], stride=[40, 1], mean=-6.0, std=2.0)
    return long("audio", sounds(data), audio, 8, 64, variant, seed)


def watch(data: Path, variant: str, seed: int) -> Recipe:
    imu = Imu(channels=6, patch=1, scale=0.2)
    return long("imu", wrist(data), imu, 4, 32, variant, seed)


SETS = {
    "cifar10": Set(tuple(CIFAR), cifar10),
    "etth1": Set(("alone", "joint", "both"), etth1),
    "esc10": Set(tuple(LONG), esc10),
    "watch": Set(tuple(LONG), watch),
}
