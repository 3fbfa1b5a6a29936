"""Blocks of timm's ViTs by this framework's names: fused or separate q, k, v, MLP or SwiGLU, inner norms, rotation.

timm turns the channels (2 i, 2 i + 1) of a head, rows first or (`xy`) columns first; here channels (i, i + d/2)
are turned, rows first. Queries and keys are reordered alike, so that every score stays what it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generalist.recipe.encoder import EncoderSpec

BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "attn.qkv.weight": "mixer.qkv.weight",
    "attn.qkv.bias": "mixer.qkv.bias",
    "attn.rel_pos.mlp.fc1.weight": "mixer.relative.up.weight",
    "attn.rel_pos.mlp.fc1.bias": "mixer.relative.up.bias",
    "attn.rel_pos.mlp.fc2.weight": "mixer.relative.down.weight",
    "attn.rel_pos.mlp.fc2.bias": "mixer.relative.down.bias",
    "attn.norm.weight": "mixer.norm.weight",
    "attn.norm.bias": "mixer.norm.bias",
    "attn.proj.weight": "mixer.out.weight",
    "attn.proj.bias": "mixer.out.bias",
    "mlp.fc1.weight": "mlp.up.weight",
    "mlp.fc1.bias": "mlp.up.bias",
    "mlp.norm.weight": "mlp.norm.weight",
    "mlp.norm.bias": "mlp.norm.bias",
    "mlp.fc2.weight": "mlp.down.weight",
    "mlp.fc2.bias": "mlp.down.bias",
    "ls1.gamma": "gamma1",
    "ls2.gamma": "gamma2",
    "gamma_1": "gamma1",
    "gamma_2": "gamma2",
}
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu"}
GATED = ("SwiGLU", "GluMlp")


def why_not(block: Any) -> str | None:
    """Why a block does not convert, in a few words; None where it does."""
    from timm.models.eva import EvaBlock, EvaBlockPostNorm
    from timm.models.vision_transformer import Block
    from timm.models.vision_transformer_relpos import RelPosBlock

    attention, mlp = block.attn, block.mlp
    if type(block) not in (Block, EvaBlock, EvaBlockPostNorm, RelPosBlock):
        return f"its blocks are {type(block).__name__}"
    kind, activation = type(mlp).__name__, type(mlp.act).__name__
    if kind not in ("Mlp", *GATED):
        return f"its channel mixer is a {kind}"
    if activation not in ACTIVATIONS and not (kind in GATED and activation == "SiLU" and not _gate_last(mlp)):
        return f"its activation is {activation}"
    if _normed(attention, "q_norm") or _normed(attention, "k_norm"):
        return "it has norms of queries and keys"
    if _normed(attention, "norm") != _normed(mlp, "norm"):
        return "it has an inner norm in one of its mixers only"
    if getattr(attention, "gate", None) is not None or getattr(attention, "num_kv_groups", 1) != 1:
        return "it has gates or shared keys in its attention"
    relative = getattr(attention, "rel_pos", None)
    if relative is not None and getattr(relative, "mode", None) != "cr":
        return f"its relative positions are of the kind {type(relative).__name__}"
    return None


def _normed(module: Any, name: str) -> bool:
    return type(getattr(module, name, None)) not in (nn.Identity, type(None))


def _gate_last(mlp: Any) -> bool:
    return bool(getattr(mlp, "gate_last", False))


def activation(block: Any) -> str:
    """The name of a block's activation; that of SwiGLU is its own and leaves the configuration's default."""
    return ACTIVATIONS.get(type(block.mlp.act).__name__, "gelu")


def spec(trunk: Any) -> EncoderSpec:
    """What a description says of a trunk's blocks besides what their tensors show."""
    block = trunk.blocks[0]
    found = EncoderSpec(heads=block.attn.num_heads, activation=activation(block), eps=block.norm1.eps)
    if type(block).__name__ == "EvaBlockPostNorm":
        found.norm = "branch"
    if type(block.mlp).__name__ in GATED:
        found.channel_mixers = "swiglu"
    relative = getattr(block.attn, "rel_pos", None)
    if relative is not None:
        found.relative = relative.mlp.fc1.out_features
    rope = getattr(trunk, "rope", None)
    if rope is not None:
        reference = 0 if rope.ref_feat_shape is None else rope.ref_feat_shape[0]
        offset, temperature = float(rope.grid_offset), float(rope.temperature)
        found.rotary = {"reference": reference, "offset": offset, "temperature": temperature}
    return found


def why_not_turned(rope: Any) -> str | None:
    """Why rotary positions of timm do not convert, in a few words; None where they do, or there are none."""
    if rope is None:
        return None
    plain = type(rope).__name__ == "RotaryEmbeddingCat" and rope.grid_type == "index" and not rope.in_pixels
    if not plain or len(set(rope.ref_feat_shape or (0,))) > 1:
        return f"its rotary positions are of the kind {type(rope).__name__}"
    return None


def tensors(state: dict[str, Tensor], theirs: str, ours: str, trunk: Any) -> dict[str, Tensor]:
    """One block of a trunk's state, from the beginning of its names to that of ours."""
    out = {ours + our: state[theirs + k] for k, our in BLOCK.items() if theirs + k in state}
    if f"{theirs}mlp.fc1_g.weight" in state:  # the gate and the value of SwiGLU, one above the other
        for end in ("weight", "bias"):
            out[f"{ours}mlp.up.{end}"] = torch.cat([state[f"{theirs}mlp.fc1_{part}.{end}"] for part in "gx"])
    if f"{theirs}attn.q_proj.weight" in state:
        out[f"{ours}mixer.qkv.weight"] = torch.cat([state[f"{theirs}attn.{n}_proj.weight"] for n in "qkv"])
    if f"{ours}mixer.qkv.bias" not in out:  # EVA's biases of q and v, or none at all
        zero = torch.zeros_like(out[f"{ours}norm1.bias"])
        names = [(f"{theirs}attn.{n}_bias", f"{theirs}attn.{n}_proj.bias") for n in "qkv"]
        out[f"{ours}mixer.qkv.bias"] = torch.cat([state.get(a, state.get(b, zero)) for a, b in names])
    if (rope := getattr(trunk, "rope", None)) is not None:
        for end in ("weight", "bias"):
            name = f"{ours}mixer.qkv.{end}"
            out[name] = _reordered(out[name], trunk.blocks[0].attn, rope.grid_indexing == "xy")
    return out


def _reordered(qkv: Tensor, attention: Any, columns_first: bool) -> Tensor:
    """The rows of a stacked q, k, v matrix or bias, those of q and k in this framework's order of channels."""
    width = len(qkv) // 3 // attention.num_heads
    pairs = torch.arange(width // 2)
    if columns_first:
        pairs = pairs.roll(-(width // 4))
    half = getattr(attention, "rotate_half", False)
    order = torch.cat([pairs, pairs + width // 2]) if half else torch.cat([2 * pairs, 2 * pairs + 1])
    parts = qkv.unflatten(0, (3, attention.num_heads, width))
    return torch.cat([parts[:2, :, order], parts[2:]]).flatten(0, 2)
