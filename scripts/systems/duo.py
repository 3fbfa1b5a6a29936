"""DuoFormer's transformer: attention among scales, then among cells, without norms and residuals as released."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.scripts.systems.plain import linear
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.duo import ScaleAttention
from generalist.tokenizers_mod.backbones.parts import SelfAttention

KINDS = ("scaleBlocks", "blocks")


def knows(reference: Reference) -> bool:
    return reference.has("scaleBlocks.0.attn.qkv.weight", "pos_embed_for_scale")


def compute(reference: Reference) -> dict[str, Tensor]:
    config, weights = reference.config, reference.weights
    heads = int(config.get("num_heads") or config["heads"])
    count = {kind: 1 + max(int(k.split(".")[1]) for k in weights if k.startswith(kind)) for kind in KINDS}
    hidden, width = weights["scaleBlocks.0.mlp.fc1.weight"].shape
    scaled = ScaleAttention(width, weights["pos_embed_for_scale"].shape[2], count["scaleBlocks"], heads, hidden / width)
    own = {k: t for k, t in weights.items() if k.startswith(("scaleBlocks.", "pos_embed_for_scale"))}
    x = loaded(scaled, own)(reference["input"])
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], dim=1) + weights["pos_embed"]
    for number in range(count["blocks"]):
        x = loaded(SelfAttention(width, heads), reference.under(f"blocks.{number}.attn."))(x)
    return {"output": linear(weights, "head", x[:, 0])}
