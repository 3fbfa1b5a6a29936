"""Examples of proposed regions, of an untrained RT-DETRv2 (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

import numpy as np

from generalist.tokenizers_mod.base.examples import INF, Examples
from generalist.tokenizers_mod.vision.examples import unreadable

CONVNEXT = {
    "model_type": "convnext",
    "hidden_sizes": [16, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
PROPOSER = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_layers": 2,
    "num_queries": 8,
    "num_denoising": 4,
    "encoder_in_channels": [16, 16, 16],
    "decoder_in_channels": [32, 32, 32],
}
# what the proposer's own loss trains: boxes, objectness and the noised objects that it learns from
LOSS_ONLY = ("denoising_class_embed", "enc_", "decoder.class_embed", "decoder.bbox_embed")
# what a Mask2Former over a Swin of this size builds and its output does not read
UNREAD = ("pixel_level_module.encoder.swin.layernorm", "pixel_level_module.decoder.level_embed")


def region() -> Examples:
    rng = np.random.default_rng(0)
    return Examples(
        {"height": 64, "width": 64, "proposals": 5, "config": PROPOSER, "backbone": CONVNEXT},
        [rng.random((20, 33)), rng.random((40, 35, 3))],
        [
            (np.zeros((0, 5)), r"at least one pixel"),
            (np.full((4, 4), INF), r"infinite|missing"),
            *unreadable(),
            (np.zeros((5, 6, 7)), r"5 channels given"),
        ],
        [(np.full((1, 1), 0.5), 10)],
        [
            ({"height": 64, "width": 96, "proposals": 5, "mode": mode}, np.zeros((9, 7, 3)), {})
            for mode in ("both", "regional", "global")
        ],
        elsewhere=[f"proposer.net.model.{name}" for name in (*LOSS_ONLY, *UNREAD)],
    )
