"""ViT-Res: the stem, what stands behind every entry, the logits of one or two prefix tokens; its masked LayerNorm."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.scripts.systems.plain import linear
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.parts import tokens_of
from generalist.tokenizers_mod.backbones.vit_res import WIDE_STEM, MaskedLayerNorm, ViTRes


def knows(reference: Reference) -> bool:
    return "network_def" in reference.config or (set(reference.weights) == {"weight", "bias"} and masked(reference))


def masked(reference: Reference) -> bool:
    return {"input", "mask", "output"} <= set(reference.tensors)


def compute(reference: Reference) -> dict[str, Tensor]:
    config, weights = reference.config, reference.weights
    if masked(reference):
        config.get("num_channels")
        norm = loaded(MaskedLayerNorm(len(weights["weight"]), config.get("eps", 1e-6)), weights)
        return {"output": norm(reference["input"], reference["mask"])}
    pixels = reference["input"]
    prefix = weights["tokens"].shape[1]
    definition = list(config["network_def"])
    if "patch_embed.conv1.conv.weight" in weights:  # however the definition says it
        definition[0] = [WIDE_STEM, definition[0][1], len(weights["patch_embed.conv1.conv.weight"])]
    made = loaded(
        ViTRes(definition, config.get("patch_size", 14), pixels.shape[2:], prefix, pixels.shape[1]),
        weights,
        ViTRes.renamed,
    )
    found = {"patch_embed_out": tokens_of(made.stem(pixels))[0]}
    states = [torch.cat(state[:2], dim=1) for state in made.states(pixels)]
    found |= {f"block{number}_out": state for number, state in enumerate(states[1:])}
    last = made.norm(states[-1])
    logits = linear(weights, "cls_head", last[:, 0])
    if prefix == 1:
        return found | {"output": logits}
    return found | {"output_cls": logits, "output_dst": linear(weights, "dst_head", last[:, 1])}
