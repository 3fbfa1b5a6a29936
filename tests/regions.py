"""Small region modalities and objects that several tests share."""

from __future__ import annotations

from typing import Any

import torch

from generalist.tokenizers_mod.regions.proposers import Objects
from generalist.tokenizers_mod.regions.region import Region

CONVNEXT = {
    "model_type": "convnext",
    "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
RT_DETR = {
    "d_model": 64,
    "encoder_hidden_dim": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_layers": 2,
    "num_queries": 20,
    "num_denoising": 6,
    "encoder_in_channels": [32, 48, 64],
    "decoder_in_channels": [64, 64, 64],
}
PROPOSERS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "rt_detr": (RT_DETR, CONVNEXT, False),
    "rt_detr_v2": (RT_DETR, CONVNEXT, True),
    "d_fine": (RT_DETR, CONVNEXT, True),
    "rf_detr": (
        {
            "d_model": 64,
            "decoder_ffn_dim": 64,
            "decoder_layers": 2,
            "decoder_self_attention_heads": 4,
            "decoder_cross_attention_heads": 4,
            "num_queries": 20,
            "group_detr": 2,
            "intermediate_size": 64,
        },
        {
            "model_type": "rf_detr_dinov2",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 16,
            "num_windows": 2,
            "out_features": ["stage1", "stage2"],
        },
        True,
    ),
    "deformable_detr": (
        {
            "d_model": 64,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "two_stage_num_proposals": 20,
            "num_queries": 20,
            "num_feature_levels": 3,
        },
        CONVNEXT,
        True,
    ),
    "mask2former": (
        {
            "feature_size": 32,
            "mask_feature_size": 32,
            "hidden_dim": 32,
            "encoder_feedforward_dim": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 4,
            "dim_feedforward": 32,
            "num_queries": 20,
            "train_num_points": 64,
        },
        {
            "model_type": "swin",
            "embed_dim": 16,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "window_size": 4,
            "image_size": 128,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        True,
    ),
}


def objects(height: int = 32, width: int = 32) -> list[Objects]:
    """Two pictures: three objects and none."""
    boxes = torch.rand(3, 4) * 0.2 + 0.3
    return [
        Objects(boxes, torch.rand(3, height, width) > 0.5),
        Objects(torch.zeros(0, 4), torch.zeros(0, height, width, dtype=torch.bool)),
    ]


def region(**settings: Any) -> Region:
    """RT-DETRv2, 20 queries, pictures of 96 x 128 (3 x 4 cells)."""
    given = {"height": 96, "width": 128, "config": RT_DETR, "backbone": CONVNEXT, "proposals": 20, **settings}
    return Region(**given)
