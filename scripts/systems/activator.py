"""Activator: blocks of a gate, with or without the feed-forward part, by our encoder with one LayerNorm a block."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.systems.plain import linear, through
from generalist.scripts.systems.reference import Reference, loaded

NAMES = {"actgu.": "mixer.", "ffn.net.0.": "mlp.up.", "ffn.net.3.": "mlp.down.", "norm.": "norm1."}


def knows(reference: Reference) -> bool:
    return reference.has("model.0.actgu.proj_1.weight")


def compute(reference: Reference) -> dict[str, Tensor]:
    weights, x = reference.under("model."), reference["input"]
    inner, width = weights["0.actgu.proj_1.weight"].shape
    whole = "0.ffn.net.0.weight" in weights
    spec = EncoderSpec(
        width=width,
        layers=1 + max(int(name.partition(".")[0]) for name in weights),
        heads=1,
        hidden=len(weights["0.ffn.net.0.weight"]) if whole else 1,
        mixers={"kind": "activator", "inner": inner},
        channel_mixers="mlp" if whole else "none",
    )
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, rest = name.partition(".")
        theirs = next(t for t in NAMES if rest.startswith(t))
        ours = NAMES[theirs] + rest.removeprefix(theirs)
        own[f"layers.{layer}.{ours}"] = tensor
        if whole and theirs == "norm.":  # one norm serves both
            own[f"layers.{layer}.{ours.replace('norm1', 'norm2')}"] = tensor
    pictures = "patcher.weight" in reference.weights
    if pictures:
        kernel = reference.weights["patcher.weight"]
        cells = torch.conv2d(x, kernel, reference.weights.get("patcher.bias"), kernel.shape[-1])
        x = cells.flatten(2).transpose(1, 2)
    x = through(loaded(Encoder(spec), own), x)
    return {"output": linear(reference.weights, "classifier", x.mean(1)) if pictures else x}
