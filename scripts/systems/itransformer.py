"""iTransformer: variates as tokens, a post-norm encoder of ours, a linear to the horizon; time marks as tokens too."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.nn.attention.padded import padded_at
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.systems.plain import linear
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.numbers.variates import Variates

LAYERS = "encoder.attn_layers."


def knows(reference: Reference) -> bool:
    return reference.has("enc_embedding.value_embedding.weight", "projector.weight")


def compute(reference: Reference) -> dict[str, Tensor]:
    """input Float[B T V] and, where there are any, marks Float[B T M] -> output Float[B S V]."""
    weights = reference.weights
    width, context = weights["enc_embedding.value_embedding.weight"].shape
    made, tokens = encoder(reference), Variates(context=context).build(width)
    for name in ("weight", "bias"):
        getattr(tokens.values, name).data.copy_(weights[f"enc_embedding.value_embedding.{name}"])
    shown = reference.config.get("use_norm", True)
    variates, marks = Variates(context=context, normalise=shown), Variates(context=context, normalise=False)
    out = []
    for number, window in enumerate(reference["input"]):
        spans = [variates.span(window)]
        if "marks" in reference.tensors:
            spans.append(marks.span(reference["marks"][number]))
        x = torch.cat([tokens(span.data) for span in spans]).unsqueeze(0)
        hidden = made(x.flatten(0, 1), padded_at(x, None))[0][: window.shape[1]]
        mean, std = variates.statistics(window)
        out.append(linear(weights, "projector", hidden).T * std + mean)
    return {"output": torch.stack(out).float()}


def encoder(reference: Reference) -> Encoder:
    weights = reference.weights
    hidden, width, _ = weights[f"{LAYERS}0.conv1.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith(LAYERS))
    heads = reference.config.get("n_heads", 8)
    spec = EncoderSpec(width=width, layers=layers, heads=heads, hidden=hidden, norm="post", final_norm=True)
    own = {f"norm.{name}": weights[f"encoder.norm.{name}"] for name in ("weight", "bias")}
    for i in range(layers):
        for name in ("weight", "bias"):
            theirs = {key: weights[f"{LAYERS}{i}.{key}.{name}"] for key in ("conv1", "conv2", "norm1", "norm2")}
            three = [weights[f"{LAYERS}{i}.attention.{part}_projection.{name}"] for part in ("query", "key", "value")]
            found = {"mixer.qkv": torch.cat(three), "mlp.up": theirs["conv1"], "mlp.down": theirs["conv2"]}
            found |= {"mixer.out": weights[f"{LAYERS}{i}.attention.out_projection.{name}"]}
            found |= {key: theirs[key] for key in ("norm1", "norm2")}
            own |= {f"layers.{i}.{key}.{name}": tensor for key, tensor in found.items()}
    return loaded(Encoder(spec), own)
