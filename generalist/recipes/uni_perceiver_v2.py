"""Uni-Perceiver v2 (2211.09808; spec 2.1-2.5). Its code was never released; every line marked [guess] is ours.

    generalist train uni_perceiver_v2_base  --out runs/v2 modalities.region.backbone_weights=FOLDER
    generalist train uni_perceiver_v2_large --out runs/v2_large modalities.region.backbone_weights=FOLDER
    generalist train uni_perceiver_v2_towers --out runs/v2_towers init=DIR          # a converted two-tower model
    generalist train uni_perceiver_v2_towers --out runs/v2_towers                   # encoders out of packages

FOLDER holds Swin-B (ImageNet-21k) or Swin-L weights in transformers' format; the text encoder is RoBERTa-base, a
folder or a hub name (modalities.text.encoder=FOLDER). Data: COCO under coco/ (instances_{train,val}.json, images/),
the rest as webdataset shards under shards/SET/ as for v1. No run of this length was measured here; the same parts,
shrunk, are trained in the tests and by `python -m scripts.ablation_v2`.

`uni_perceiver_v2_towers` is the same decoder on whole pictures and whole texts. With init=DIR both encoders, width and
law are those of CLIP, SigLIP ... (`generalist convert open-clip`, `convert hf`), and the decoder's layers begin as the
identity: before the first step all zero-shot answers are the towers'. Without, the encoders are zoo names, any other by
modalities.image.backbone and modalities.text.encoder. Captions, masked words and boxes need tokens below a whole text
or picture: they belong to the other two.
"""

from __future__ import annotations

from typing import Any

from generalist.data.sources.coco import CocoObjects
from generalist.data.sources.shards import Shards
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, MoeSpec, OptimizerSpec
from generalist.recipes.uni_perceiver import PAIRS
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.regions.segment import Segment
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.regions.region import Region
from generalist.tokenizers_mod.text.summary import Summary

# embedding width, depths, heads, window of Swin-B and Swin-L
SWIN = {
    "base": (128, [2, 2, 18, 2], [4, 8, 16, 32], 12),
    "large": (192, [2, 2, 18, 2], [6, 12, 24, 48], 12),
}


def backbone(size: str) -> dict[str, Any]:
    """Swin with its last three scales; the paper's network reads four [guess: the library's RT-DETRv2 reads three]."""
    width, depths, heads, window = SWIN[size]
    return {
        "model_type": "swin",
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": window,
        "image_size": 384,
        "out_features": ["stage2", "stage3", "stage4"],
    }


def proposer(size: str) -> dict[str, Any]:
    """[guess] The paper's is Mask-DINO-like with 300 queries; RT-DETRv2 with a mask head is the library's nearest."""
    width = SWIN[size][0]
    return {
        "encoder_in_channels": [2 * width, 4 * width, 8 * width],
        "num_queries": 300,  # [guess]
        "decoder_layers": 6,
    }


def uni_perceiver_v2(size: str = "base", coco: str = "coco", shards: str = "shards", processes: int = 32) -> Recipe:
    """processes: batches are this many times a per-GPU batch [guess: the paper's are in its appendix]."""
    inputs = {"region": "image"}
    tasks: list[Task] = [
        named(inputs, shards, processes),
        # boxes and masks of one task, detection and instance segmentation together [2.4]
        Segment(
            name="coco", source=CocoObjects(coco, masks=True), inputs=inputs, batch=processes, share=2.5
        ),  # [guess]
        Fill(
            name="books_wiki",
            source=Shards(path=f"{shards}/books_wiki", fields={"text": "txt"}),
            batch=256 * processes,  # [guess]
            share=2.75,  # [guess: v1's]
        ),
    ]
    for name, share in PAIRS.items():  # [guess: v1's shares]
        source = Shards(path=f"{shards}/{name}", fields={"image": "jpg;png", "caption": "txt"})
        tasks += [
            Describe(
                name=f"{name}_caption",
                source=source,
                inputs=inputs,
                caption="caption",
                batch=48 * processes,
                share=share,
                max_length=50,
            ),
            retrieved(name, share, source, inputs, processes),
        ]
    return Recipe(
        name=f"uni_perceiver_v2_{size}",
        about=f"Uni-Perceiver v2 {size}: regions by Swin, RoBERTa texts, a 6-layer decoder with experts",
        steps=200_000,  # [guess]
        sampling="unmixed",  # one task for all processes [2.5]
        workers=8,
        modalities={
            "summary": Summary(),
            "text": PretrainedText(encoder="roberta-base", max_length=128, positions=128),  # tuned jointly [2.2]
            "region": Region(
                height=640,  # [guess]; the paper's detection sizes are in its appendix
                width=640,
                proposer="rt_detr_v2",
                config=proposer(size),
                backbone=backbone(size),
                masks=True,
                mode="both",
                proposals=200,  # [2.1]
                pooled=1,  # [guess]
                augment={"zoom": 0.5},  # [guess]
            ),
        },
        tasks=tasks,
        model=decoder(),
        optimizer=optimizer(),
        engine=EngineSpec(precision="bf16"),
        checkpoint=CheckpointSpec(every=5000, keep=3),
    )


def decoder() -> ModelSpec:
    """BERT-base layout, 6 layers, random start, attribute-routed experts in every FFN, none in attention [2.3]."""
    return ModelSpec(768, 6, 12, 3072, initial_scale=1 / 0.07, moe=MoeSpec(placement="all", parts="mlp"))


def optimizer() -> OptimizerSpec:
    return OptimizerSpec(
        kind="balanced",  # [2.5]
        lr=1e-4,  # [guess]
        betas=(0.9, 0.999),
        weight_decay=0.05,  # [guess]
        warmup=5000,  # [guess]
    )


def named(inputs: dict[str, str], shards: str, processes: int) -> Classify:
    """ImageNet's pictures by their names."""
    return Classify(
        name="imagenet1k",
        templates=[],
        source=Shards(path=f"{shards}/imagenet1k", fields={"image": "jpg;png", "label": "cls"}),
        inputs=inputs,
        batch=28 * processes,  # [guess]
        share=2.486,  # [guess: v1's]
        smoothing=0.1,
    )


def retrieved(name: str, share: float, source: Shards, inputs: dict[str, str], processes: int) -> Retrieve:
    """Captions of pictures, and pictures of captions, among those of a batch."""
    return Retrieve(
        name=f"{name}_retrieval",
        source=source,
        inputs=inputs,
        partners={"text": "caption"},
        batch=64 * processes,
        share=share,
        smoothing=0.1,
    )


def uni_perceiver_v2_towers(shards: str = "shards", processes: int = 32) -> Recipe:
    """Pretrained picture encoder, pretrained text encoder, general decoder (section 3.1) on pictures and texts."""
    inputs = {"image": "image"}
    tasks: list[Task] = [named(inputs, shards, processes)]
    for name, share in PAIRS.items():  # [guess: v1's shares]
        source = Shards(path=f"{shards}/{name}", fields={"image": "jpg;png", "caption": "txt"})
        tasks.append(retrieved(name, share, source, inputs, processes))
    return Recipe(
        name="uni_perceiver_v2_towers",
        about="Uni-Perceiver v2 from two towers: init=DIR or encoders of the zoo, a 6-layer decoder with experts",
        steps=200_000,  # [guess]
        sampling="unmixed",
        workers=8,
        modalities={
            "summary": Summary(),
            "text": PretrainedText(encoder="zoo:minilm", max_length=128, positions=128),
            "image": Backbone(backbone="zoo:efficientnet_lite0"),
        },
        tasks=tasks,
        model=decoder(),
        optimizer=optimizer(),
        engine=EngineSpec(precision="bf16"),
        checkpoint=CheckpointSpec(every=5000, keep=3),
    )


def uni_perceiver_v2_base() -> Recipe:
    return uni_perceiver_v2("base")


def uni_perceiver_v2_large() -> Recipe:
    return uni_perceiver_v2("large")
