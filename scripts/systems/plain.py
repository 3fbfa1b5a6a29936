"""A published network's plain part by our encoder: pre-norm blocks with the names that vision transformers share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.nn.attention.padded import padded_at
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.systems.reference import loaded

NAMES = {"attn.qkv": "mixer.qkv", "attn.proj": "mixer.out", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}


def encoder(weights: dict[str, Tensor], heads: int, eps: float, scale: float | None = None) -> Encoder:
    """Ours with the weights of blocks `0.norm1.weight`, `0.attn.qkv.weight` ...; biases that they lack are zeros.

    scale: of the scores, None for 1 / sqrt(width of a head); it is multiplied into the queries."""
    width, hidden = weights["0.mlp.fc2.weight"].shape
    layers = 1 + max(int(name.partition(".")[0]) for name in weights)
    made = Encoder(EncoderSpec(width=width, layers=layers, heads=heads, hidden=hidden, eps=eps))
    own = {name: torch.zeros_like(t) for name, t in made.state_dict().items() if name.endswith("qkv.bias")}
    for name, tensor in weights.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        own[f"layers.{name}"] = tensor
    if scale is not None:
        for name in [name for name in own if "mixer.qkv" in name]:
            queries, rest = own[name].split([width, 2 * width])
            own[name] = torch.cat([queries * (scale * (width // heads) ** 0.5), rest])
    return loaded(made, own)


def through(made: Encoder, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
    return made(x.flatten(0, 1), padded_at(x, None))[0].view(x.shape)


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """x through the linear of this name."""
    return torch.nn.functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    """x through the LayerNorm of this name."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)
