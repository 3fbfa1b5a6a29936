"""Uni-Perceiver v1 pre-training, as released (2112.01522; settings of spec 1.10-1.14, marked [spec section]).

    generalist train uni_perceiver_tiny  --out runs/tiny       # 7 tasks, 224 pixels, 150k steps [1.13]
    generalist train uni_perceiver_base  --out runs/base       # 16 tasks, 160 pixels, 200k steps [1.12, 1.13]
    generalist train uni_perceiver_large / uni_perceiver_moe_base
    generalist train uni_perceiver_base_stage2 init=runs/base     # 224 pixels, 45k steps from stage 1's weights [1.13]
    generalist train uni_perceiver_large_stage2 / uni_perceiver_moe_base_stage2

Batches are those of 64 processes; fewer: tasks.NAME.batch=... Data are webdataset shards under shards/SET/ (see
`generalist data shard`); another place: a recipe file of your own that returns `pretraining("base", root="...")`.
Shard members: jpg + cls (ImageNet), mp4 + cls (Kinetics, Moments in Time), jpg + txt (captions), txt (text lines);
or the fields image, video, label, caption, text. "classes" of ImageNet may have "synonyms" {name: [names]} beside
them in index.json, of which training draws one for each batch [1.9].
No run of this length was measured here; the same code, shrunk, is trained in the tests.
"""

from __future__ import annotations

from typing import Any

from generalist.convert.uni_perceiver.keys import SCALES
from generalist.data.sources.shards import Shards
from generalist.data.stream.source import Source
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.video import IMAGENET_MEAN, IMAGENET_STD, Picture, Video

PROCESSES = 64  # [1.12]
# width, layers, heads, hidden, drop path [1.2, 1.7]
SIZES = {
    "tiny": (192, 12, 3, 768, 0.1),
    "base": (768, 12, 12, 3072, 0.1),
    "large": (1024, 24, 16, 4096, 0.2),
}
# sampling weights of captioning and of retrieval [1.13]
PAIRS = {"yfcc": 0.5840, "cc12m": 0.5057, "cc3m": 0.26295, "vg": 0.1766, "coco": 0.1144, "sbu": 0.1383}
# what stage 2 changes [1.12, 1.13]: batch a process, loss weight, share, smaller by task or kind of task
STAGE2_BATCH = {"imagenet22k": 440, "kinetics700": 12, "moments": 68, "describe": 200, "retrieve": 320}
STAGE2_WEIGHT = {"kinetics700": 0.05, "moments": 0.05, "books_wiki": 0.25, "describe": 0.5, "retrieve": 0.5}
STAGE2_SHARE = {"kinetics700": 1.0, "moments": 0.2}
STAGE2_STEPS = {"base": 45_000, "large": 90_000, "moe": 50_000}
SPE = 49410  # its id in the 49,411-entry vocabulary [1.3]


def modalities(size: int, text: Text | None = None, strong: bool = True) -> dict[str, Modality]:
    """The v1 tokenizers at this many pixels: one set of vision weights, five ways of preparing pixels [1.6, 1.14]."""
    text = text or Text(tokenizer="clip", max_length=128, positions=512, word_std=0.02, position_std=0.02)
    shape: dict[str, Any] = {"size": size, "patch": 16, "frames": 8}
    imagenet: dict[str, Any] = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    return {
        "summary": Summary(as_text=SPE if text.tokenizer == "clip" else text.spe),
        "text": text,
        "image": Picture(**shape, **imagenet, augment="crop"),
        "image_strong": Picture(
            **shape, **imagenet, augment="strong" if strong else "crop", short_side=256 / 224, shares="image"
        ),
        "video": Video(**shape, augment="crop", shares="image"),
        "video4": Video(**shape, augment="crop", sample=4, shares="image"),
        "video3": Video(**shape, augment="crop", sample=3, shares="image"),
    }


def released_config(width: int, layers: int, heads: int, hidden: int, size: int = 224) -> GeneralistConfig:
    """The layout of the released files: 224 pixels, all eleven logit scales [6]."""
    chosen = modalities(size)
    return GeneralistConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden,
        layer_scale=1e-3,
        initial_scale=1 / 0.07,
        modalities=modality_settings({name: chosen[name] for name in ("summary", "text", "image", "video")}),
        scales=["default", *sorted(SCALES)],
    )


def pretraining(size: str = "base", root: str = "shards", processes: int = PROCESSES, moe: bool = False) -> Recipe:
    """Stage 1 of the released pre-training. moe: 8 experts in every other layer, attribute router [3]."""
    width, layers, heads, hidden, drop_path = SIZES[size]
    recipe = Recipe(
        name=f"uni_perceiver_{'moe_' if moe else ''}{size}",
        about=f"Uni-Perceiver v1 {size}{' with experts' if moe else ''}: 16 tasks over images, videos and text",
        steps=200_000 if not moe else 230_000,
        sampling="mixed",  # every process draws its own task, as the released trainer does
        workers=8,
        modalities=modalities(160),
        tasks=[*_vision(root, processes), *_text(root, processes), *_pairs(root, processes)],
        model=ModelSpec(width, layers, heads, hidden, layer_scale=1e-3, drop_path=drop_path, initial_scale=1 / 0.07),
        optimizer=adamw(weight_decay=0.2, warmup=10_000),
        engine=EngineSpec(precision="bf16"),  # the released code trains in fp16 with loss scaling
        checkpoint=CheckpointSpec(every=5000, keep=3),
    )
    many_views(recipe, "video4")
    if moe:
        recipe.model.moe.placement = "odd"
    return recipe


def adamw(weight_decay: float, warmup: int) -> OptimizerSpec:
    """The released optimiser of every stage [1.12]."""
    return OptimizerSpec(
        kind="adamw",
        lr=1e-3,
        min_lr=1e-6,
        betas=(0.9, 0.95),
        eps=1e-6,
        weight_decay=weight_decay,
        warmup=warmup,
        clip=0.1,
    )


def many_views(recipe: Recipe, name: str) -> None:
    """Evaluation of Kinetics: four interleaved clips of a film, each in three crops, 12 views [1.14]."""
    modality: Any = recipe.modalities[name]
    modality.clips, modality.crops = 4, 3


def shards_of(root: str, name: str, fields: dict[str, str]) -> Source:
    return Shards(path=f"{root}/{name}", fields=fields)


def _vision(root: str, processes: int) -> list[Task]:
    picture, clip = {"image": "jpg;png", "label": "cls"}, {"video": "mp4", "label": "cls"}
    return [
        Classify(
            name="imagenet22k",
            templates=[],  # the published recipe has none (spec 1.9)
            source=shards_of(root, "imagenet22k", picture),
            inputs={"image_strong": "image"},
            batch=720 * processes,
            share=2.486,
            scale="img_cls",
            smoothing=0.1,
            mixup=0.8,
            cutmix=1.0,
        ),
        Classify(
            name="kinetics700",
            templates=[],  # the published recipe has none (spec 1.9)
            source=shards_of(root, "kinetics700", clip),
            inputs={"video4": "video"},
            batch=64 * processes,
            share=0.76,
            weight=0.1,
            scale="video_cls",
            smoothing=0.1,
        ),
        Classify(
            name="moments",
            templates=[],  # the published recipe has none (spec 1.9)
            source=shards_of(root, "moments", clip),
            inputs={"video3": "video"},
            batch=112 * processes,
            share=0.44,
            weight=0.1,
            scale="video_cls",
            smoothing=0.1,
        ),
    ]


def _text(root: str, processes: int) -> list[Task]:
    lines = shards_of(root, "books_wiki", {"text": "txt"})
    return [Fill(name="books_wiki", source=lines, batch=512 * processes, share=2.75, weight=0.5, scale="text_mlm")]


def _pairs(root: str, processes: int) -> list[Task]:
    tasks: list[Task] = []
    for name, share in PAIRS.items():
        source = shards_of(root, name, {"image": "jpg;png", "caption": "txt"})
        tasks += [
            Describe(
                name=f"{name}_caption",
                source=source,
                caption="caption",
                batch=300 * processes,
                share=share,
                scale="caption",
                max_length=30 if name == "vg" else 50,
            ),
            # both directions weigh .5; the likelihood takes their mean, hence 1 [1.10, 1.13]
            Retrieve(
                name=f"{name}_retrieval",
                source=source,
                inputs={"image": "image"},
                partners={"text": "caption"},
                batch=512 * processes,
                share=share,
                weight=1.0,
                scale="retrieve",
                smoothing=0.1,
            ),
        ]
    return tasks


def stage2(recipe: Recipe, processes: int = PROCESSES, dense_weights: bool = True) -> Recipe:
    """Stage 2 of a stage-1 recipe: 224 pixels, a fiftieth of the rate, 8-frame clips, no mixup [1.12, 1.13].

    dense_weights: loss weights are halved as in the dense model's second stage; the mixture of experts keeps those of
    stage 1. The weights of stage 1 are those of its own folder unless init=FOLDER names another.
    """
    recipe.init = f"runs/{recipe.name}"
    recipe.name += "_stage2"
    recipe.about += ", second stage"
    recipe.modalities = modalities(224)
    del recipe.modalities["video4"]
    many_views(recipe, "video")
    for task in recipe.tasks:
        size = STAGE2_BATCH.get(task.name, STAGE2_BATCH.get(task.kind))
        task.batch = task.batch if size is None else size * processes
        task.share = STAGE2_SHARE.get(task.name, task.share)
        if dense_weights:
            task.weight = STAGE2_WEIGHT.get(task.name, STAGE2_WEIGHT.get(task.kind, task.weight))
        if isinstance(task, Classify):
            task.mixup = task.cutmix = 0.0
        task.inputs = {{"video4": "video"}.get(m, m): field for m, field in task.inputs.items()}
    recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.warmup = 2e-5, 0.05, 5000
    return recipe


def uni_perceiver_base_stage2() -> Recipe:
    recipe = stage2(pretraining("base"))
    recipe.steps = STAGE2_STEPS["base"]
    return recipe


def uni_perceiver_large_stage2() -> Recipe:
    """Guessed from the names of released folders: 90k steps, two micro steps, pairs weigh .5 [1.13]."""
    recipe = stage2(pretraining("large"))
    recipe.steps, recipe.engine.accumulate = STAGE2_STEPS["large"], 2
    return recipe


def uni_perceiver_moe_base_stage2() -> Recipe:
    recipe = stage2(pretraining("base", processes=56, moe=True), processes=56, dense_weights=False)
    recipe.steps = STAGE2_STEPS["moe"]
    return recipe


def uni_perceiver_base() -> Recipe:
    return pretraining("base")


def uni_perceiver_large() -> Recipe:
    """Stage 1 with the large encoder; the released schedule of the large model is not known [1.13]."""
    return pretraining("large")


def uni_perceiver_moe_base() -> Recipe:
    return pretraining("base", processes=56, moe=True)  # [1.12]
