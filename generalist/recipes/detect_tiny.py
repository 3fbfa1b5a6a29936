"""Blood cells found and named on one CPU core: RT-DETRv2 proposals, class by likelihood against the encoded names.

    generalist train detect_tiny tasks.cells.source.folder=FOLDER    # FOLDER holds instances_{train,val}.json, images/

1.5 M parameters, 900 steps of 8 pictures of 192 x 160: 254 to 285 s of processor time, five to ten minutes on one core
that was shared with other work. On the val split of the BCCD blood cells, three seeds, mean ± standard deviation:

    AP50 .823 ± .039, AP .524 ± .019      red cells .809 ± .016, white .984 ± .008, platelets .677 ± .101
    names permuted at test, AP50          .013 ± .003 and .066 ± .012; red and white exchanged: .233 ± .035, nearly
                                          all of it the platelets'
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generalist.data.sources.coco import CocoObjects
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.regions.segment import Segment
from generalist.tokenizers_mod.regions.region import Region
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text

WIDTH = 96


def backbone() -> dict:
    """A ResNet of four basic blocks with batch norms that learn."""
    return {
        "model_type": "rt_detr_resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 48, 64, 96],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    }


def proposer(queries: int = 60) -> dict:
    """RT-DETRv2 with two decoder layers, as small as it still learns well."""
    return {
        "d_model": WIDTH,
        "encoder_hidden_dim": WIDTH,
        "encoder_in_channels": [48, 64, 96],
        "decoder_in_channels": [WIDTH] * 3,
        "encoder_ffn_dim": 2 * WIDTH,
        "decoder_ffn_dim": 2 * WIDTH,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "decoder_layers": 2,
        "hidden_expansion": 0.5,
        "num_queries": queries,
        "num_denoising": 30,
    }


def region() -> Region:
    """Pictures of 192 x 160 as the proposals of that network; mean and deviation are those of the blood cells."""
    return Region(
        height=160,
        width=192,
        proposer="rt_detr_v2",
        config=proposer(),
        backbone=backbone(),
        mode="regional",
        proposals=60,
        mean=[0.737, 0.696, 0.715],
        std=[0.061, 0.101, 0.075],
        augment={"flip_y": 0.5},
    )


def detect_tiny(folder: str = "bccd_detection") -> Recipe:
    return Recipe(
        name="detect_tiny",
        about="blood cells detected: region proposals named by likelihood",
        steps=900,
        step_seconds=0.69,
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=300, max_length=16, positions=16),
            "region": region(),
        },
        tasks=[Detect(name="cells", source=CocoObjects(folder), inputs={"region": "image"}, batch=8)],
        model=ModelSpec(width=WIDTH, layers=2, heads=4, hidden=2 * WIDTH, embedding_norm=False),
        optimizer=OptimizerSpec(kind="adamw", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, warmup=60, clip=1.0),
        engine=EngineSpec(threads=1),
        checkpoint=CheckpointSpec(every=250, keep=1),
    )


def segment_tiny(folder: str = "coco_open") -> Recipe:
    """The same network with masks, on photographs with COCO's polygons: shows the parts, not a good detector.

    On 75 photographs of 67 kinds of things (coco_open; seed 0, 299 s) it learns to outline, but not to name: mask AP50
    .003 on 39 held-out photographs, .038 on its own. tests/test_masks_real.py learns three of them by heart.
    """
    made = detect_tiny(folder)
    photo: dict[str, Any] = {"mean": [0.479, 0.459, 0.422], "std": [0.251, 0.250, 0.271], "augment": {}}
    source = CocoObjects(folder, masks=True)
    return replace(
        made,
        name="segment_tiny",
        about="things in photographs outlined: region proposals with masks, named by likelihood",
        step_seconds=0.4,
        modalities={
            **made.modalities,
            "text": Text(tokenizer="", learn=400, max_length=16, positions=16),
            "region": replace(region(), masks=True, **photo),
        },
        tasks=[Segment(name="things", source=source, inputs={"region": "image"}, batch=8, threshold=0.25)],
        candidates={},
    )
