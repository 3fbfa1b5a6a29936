"""Uni-Perceiver's ablation model: seven tasks at a size that a few GPUs train."""

from __future__ import annotations

from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec
from generalist.recipes.uni_perceiver import PROCESSES, SIZES, adamw, modalities, shards_of
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.fill import Fill

TINY_PAIRS = {"cc12m": 1.6889, "cc3m": 0.8780, "vg": 0.5895, "coco": 0.3817, "sbu": 0.4618}


def uni_perceiver_tiny(root: str = "shards", processes: int = PROCESSES) -> Recipe:
    """The 7-task ablation [1.13]."""
    width, layers, heads, hidden, drop_path = SIZES["tiny"]
    third = 1 / 3
    picture = {"image": "jpg;png", "label": "cls"}
    tasks: list[Task] = [
        Classify(
            name="imagenet1k",
            templates=[],  # the published recipe has none (spec 1.9)
            source=shards_of(root, "imagenet1k", picture),
            inputs={"image_strong": "image"},
            batch=720 * processes,
            share=2.5,
            scale="img_cls",
            smoothing=0.1,
        ),
        Fill(
            name="books_wiki",
            source=shards_of(root, "books_wiki", {"text": "txt"}),
            batch=512 * processes,
            share=3.5,
            weight=third,
            scale="text_mlm",
        ),
    ]
    tasks += [
        Describe(
            name=f"{name}_caption",
            source=shards_of(root, name, {"image": "jpg;png", "caption": "txt"}),
            caption="caption",
            batch=300 * processes,
            share=share,
            weight=third,
            scale="caption",
            max_length=30 if name == "vg" else 50,
        )
        for name, share in TINY_PAIRS.items()
    ]
    return Recipe(
        name="uni_perceiver_tiny",
        about="Uni-Perceiver v1 tiny: classification, masked words and captioning, 7 tasks",
        steps=150_000,
        sampling="mixed",
        workers=8,
        modalities={k: v for k, v in modalities(224).items() if not k.startswith("video")},
        tasks=tasks,
        model=ModelSpec(width, layers, heads, hidden, layer_scale=1e-3, drop_path=drop_path, initial_scale=1 / 0.07),
        optimizer=adamw(weight_decay=0.05, warmup=5000),
        engine=EngineSpec(precision="bf16"),
        checkpoint=CheckpointSpec(every=5000, keep=3),
    )
