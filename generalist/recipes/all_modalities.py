"""One model on two dozen small real sets of every modality: images, X-ray, spectra, clips, sound, points, motion,
series, tables, graphs, molecules and text, classified, regressed, forecast, retrieved, answered and filled in.

    generalist train my_recipe.py           # def recipe(): return all_modalities.recipe(Path("../shared/data"))
    python -m scripts.all_modalities DATA   # joint, alone and the ordinary baseline side by side

The sets are described where they lie (`generalist.data.sources.local`, `generalist.data.sources.windows`); nothing of
the test splits is trained on, and
validation is set aside from training data where a set brings none. 36,000 steps (`recipe(data, 36000)`) took 4,321 s
on one core, the other busy too; the README's results hold the table, and what other settings gave.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.recipes.all_sets import tasks
from generalist.recipes.detect_tiny import region
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.geometry.graph import Graph
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.numbers.imu import Imu
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.spectral import Spectral
from generalist.tokenizers_mod.vision.video import Video
from generalist.tokenizers_mod.vision.xray import XRay


def modalities() -> dict[str, Modality]:
    """One entry a kind of input; kinds whose channels or columns differ have entries of their own."""
    return {
        "summary": Summary(),
        "text": Text(tokenizer="", learn=1500, max_length=64, positions=64, drop=0.1),
        "image": Image(size=32, patch=16, channels=3, mean=0.45, std=0.27, shift=2, stem=24, views=9),
        "scene": Image(size=192, patch=48, channels=3, mean=0.8, std=0.3, stem=12),
        "photo": Image(size=96, patch=32, channels=3, mean=0.45, std=0.27, stem=16),
        "region": replace(region(), norm="group"),  # two sets of very unlike pictures share its layers
        "xray": XRay(size=28, patch=14, mean=0.5, std=0.25, shift=2, stem=24, views=9),
        "spectral": Spectral(bands=4, patch=3, flip=True, views=8, hidden=192),
        "video": Video(size=64, patch=64, frames=8, stem=12, moving=True),
        "audio": Audio(
            rate=8000, mels=40, patch=[40, 8], stride=[40, 8], mean=-6.0, std=2.0, max_seconds=4.0, windows=3
        ),
        "points": Points(groups=32, size=16, hidden=32, scale=0.1, jitter=0.01),
        "watch": Imu(channels=6, patch=8, window=512, windows=3, scale=0.2),
        "motion": Imu(channels=6, patch=8),
        "vowels": Imu(channels=12, patch=2),
        "trace": Imu(channels=1, patch=4),
        "series": Series(patch=16),
        "slot": Slot(patch=16, recent=512),
        "rain": Series(patch=4, normalise=False, centre="last"),
        "rain_around": Imu(channels=81, patch=4),
        "rain_slot": Slot(patch=6, recent=8),
        "table": Table(bins=128, drop=0.1),
        "molecule": Graph(),
        "compound": Graph(),
        "protein": Graph(),
        "citation": Graph(drop=0.3, hide=0.5),
        "number": Number(),
    }


def recipe(data: Path, steps: int = 8000) -> Recipe:
    """The joint recipe over the sets in the folder `data`. UserError (on training) names a set that is not there."""
    return Recipe(
        name="all_modalities",
        about="one encoder on small real sets of every modality",
        steps=steps,
        modalities=modalities(),
        tasks=tasks(data),
        model=ModelSpec(width=96, layers=4, heads=4, hidden=384, embedding_norm=False),
        # thirty tasks with tokenizers of their own: MT-AdamW moves what one task alone uses by 1 / share of its rate,
        # and the shared rate that this allows (2e-4) learnt more slowly in the first 600 steps of the same run
        optimizer=OptimizerSpec(kind="adamw", lr=1e-3, warmup=min(500, steps // 10 + 1), weight_decay=0.05, clip=1.0),
        checkpoint=CheckpointSpec(every=1000, keep=1),
    )
