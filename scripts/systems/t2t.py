"""T2T-ViT: its first cut, both token modules' stem, and the logits through our own encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.scripts.systems.plain import encoder, layer_norm, linear, through
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.parts import tokens_of
from generalist.tokenizers_mod.backbones.t2t import CUTS, T2T, cut


def knows(reference: Reference) -> bool:
    return reference.has("tokens_to_token.project.weight")


def compute(reference: Reference) -> dict[str, Tensor]:
    config, weights, pixels = reference.config, reference.weights, reference["input"]
    width, heads = config["embed_dim"], config["num_heads"]
    made = loaded(T2T(width, config["token_dim"], config["tokens_type"], pixels.shape[1]), weights, T2T.renamed)
    split, _ = cut(pixels, *CUTS[0])
    stem, _ = tokens_of(made(pixels)[0])
    found = {"split0": split, "attention1_out": made.attention1(split), "t2t_out": stem}
    x = torch.cat([weights["cls_token"].expand(len(stem), -1, -1), stem], dim=1) + weights["pos_embed"]
    x = through(encoder(reference.under("blocks."), heads, 1e-5, config.get("qk_scale")), x)
    return found | {"output": linear(weights, "head", layer_norm(weights, "norm", x, 1e-5)[:, 0])}
