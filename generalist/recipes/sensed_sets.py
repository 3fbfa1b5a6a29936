"""The sets of the all-modalities recipe that come from cameras, microphones and sensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generalist.data.sources.local import Arrays
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify

OWN_VAL = {"train": "train", "val": "val", "test": "test"}
LAST_IS_TEST = {"train": "train", "val": "train", "test": "val"}  # sets whose held-out part is called val


def at(data: Path, name: str) -> str:
    return str(data / name)


def classify(name: str, inputs: dict[str, str], source: Any, **settings: Any) -> Classify:
    return Classify(name=name, inputs=inputs, source=source, **{"batch": 64, "smoothing": 0.05} | settings)


def signals(data: Path, name: str, classes: Any = "y_{split}") -> Arrays:
    fields = {"signal": "x_{split}", "label": "y_{split}"}
    place = at(data, f"ucr_timeseries/{name}.npz")
    return Arrays(place, fields, classes=classes, transpose=["signal"], holdout=0.2)


def pictures(data: Path) -> list[Task]:
    """Fashion, objects, chests and land from above, as still pictures."""
    return [
        classify(
            "fashion_mnist",
            {"image": "image"},
            Arrays(
                at(data, "fashion_mnist/fashion_mnist.npz"),
                {"image": "x_{split}", "label": "y_{split}"},
                classes="class_names",
            ),
            share=1.2,
        ),
        classify(
            "cifar10",
            {"image": "image"},
            Arrays(
                at(data, "cifar10_subset/{split}.parquet"),
                {"image": "picture:image_jpg", "label": "label_name"},
                classes="label_name",
            ),
            share=1.5,
        ),
        classify(
            "pneumonia",
            {"xray": "image"},
            Arrays(
                at(data, "pneumonia_xray28/pneumonia28.npz"),
                {"image": "x_{split}", "label": "y_{split}"},
                LAST_IS_TEST,
                classes="class_names",
            ),
            share=0.8,
        ),
        classify(
            "landsat",
            {"spectral": "cube"},
            Arrays(
                at(data, "landsat_multispectral/landsat.npz"),
                {"cube": "x_{split}", "label": "y_{split}"},
                classes="class_names",
            ),
            share=1.5,
        ),
    ]


def clips_and_clouds(data: Path) -> list[Task]:
    """Clips and point clouds."""
    return [
        classify(
            "lpc_action",
            {"video": "clip"},
            Arrays(
                at(data, "lpc_action_clips/lpc_{split}.npz"),
                {"clip": "video", "label": "action"},
                group="character",
                classes="action_names",
            ),
            batch=16,
            share=0.5,
        ),
        classify(
            "lowpoly",
            {"points": "cloud"},
            Arrays(
                at(data, "lowpoly_points/points.npz"),
                {"cloud": "points_{split}", "label": "label_{split}"},
                classes="class_names",
            ),
            batch=32,
            share=1,
        ),
    ]


def sounds(data: Path) -> list[Task]:
    """Digits that people say, and sounds of the surroundings."""
    return [
        classify(
            "fsdd",
            {"audio": "audio"},
            Arrays(
                at(data, "fsdd_audio/fsdd_{split}.npz"),
                {"audio": {"array": "audio@offsets", "sampling_rate": "sample_rate"}, "label": "label"},
                classes=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            ),
            share=0.5,
        ),
        classify(
            "esc10",
            {"audio": "audio"},
            Arrays(
                at(data, "esc10_audio/meta.csv"),
                {"audio": "sound:file", "label": "label_name"},
                fold="fold",
                test_fold=4,
                val_fold=3,
                classes="label_name",
            ),
            batch=16,
            share=0.5,
        ),
    ]


def motion(data: Path) -> list[Task]:
    """Signals of watches, bodies, voices and meters."""
    return [
        classify(
            "watch",
            {"watch": "signal"},
            Arrays(
                at(data, "watch_imu/watch_{split}.npz"),
                {"signal": "signal@offsets", "label": "label"},
                group="subject",
                holdout=0.2,
                classes="class_names",
            ),
            batch=16,
            share=0.4,
        ),
        classify("basic_motions", {"motion": "signal"}, signals(data, "BasicMotions"), batch=16, share=0.4),
        classify("japanese_vowels", {"vowels": "signal"}, signals(data, "JapaneseVowels"), batch=16, share=0.4),
        classify("italy_power", {"trace": "signal"}, signals(data, "ItalyPowerDemand"), batch=16, share=0.4),
        classify("arrow_head", {"trace": "signal"}, signals(data, "ArrowHead"), batch=16, share=0.4),
    ]
