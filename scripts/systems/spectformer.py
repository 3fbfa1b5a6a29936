"""SpectFormer's vanilla form: the gate of its first block alone, every block, and the logits."""

from __future__ import annotations

from torch import Tensor

from generalist.scripts.systems.plain import linear
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.parts import resampled, tokens_of
from generalist.tokenizers_mod.backbones.spectformer import SpectFormer, SpectralBlock


def knows(reference: Reference) -> bool:
    return reference.has("patch_embed.proj.weight", "blocks.0.filter.complex_weight")


def compute(reference: Reference) -> dict[str, Tensor]:
    config, pixels = reference.config, reference["input"]
    made = loaded(
        SpectFormer(
            config["embed_dim"],
            config["depth"],
            config.get("alpha", 4),
            config.get("num_heads", 6),
            config.get("mlp_ratio", 4.0),
            config["patch_size"],
            pixels.shape[2:],
            pixels.shape[1],
        ),
        reference.weights,
        SpectFormer.renamed,
    )
    features = made(pixels)[0].flatten(2).mean(2)
    found = {"output": linear(reference.weights, "head", features)}
    x, grid = tokens_of(made.embed(pixels))
    x = x + resampled(made.pos_embed, made.grid, *grid)
    for number, block in enumerate(made.blocks):
        x = block(x.unflatten(1, grid)).flatten(1, 2) if isinstance(block, SpectralBlock) else block(x)
        found[f"block{number}_out"] = x
    first = made.blocks[0]
    if "gate_input" in reference.tensors and isinstance(first, SpectralBlock):
        gated = first.filter(reference["gate_input"].unflatten(1, grid), None)
        found["gate_output_block0"] = gated.flatten(1, 2)
    return found
