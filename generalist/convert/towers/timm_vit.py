"""ViT towers of timm (SigLIP, SigLIP 2, EVA, EVA-02, Perception Encoder, CLIP's own) as models of this framework.

    tokens   patch kernel + bias + positions        class token, if any, is the summary
    encoder  blocks (`timm_block`), LayerNorm, optional layer scale and rotation; the last norm is the encoder's
    feature  class token, mean of the patches, or SigLIP's attention pooling, then a linear map or none

Towers without a class token get a summary that no patch sees. What is no such ViT is refused, and the reason named.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from generalist.convert.report import Report
from generalist.convert.towers import timm_block, vit
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor

POOLER = {
    "kv.weight": "kv.weight",
    "kv.bias": "kv.bias",
    "proj.weight": "out.weight",
    "proj.bias": "out.bias",
    "norm.weight": "norm2.weight",
    "norm.bias": "norm2.bias",
    "mlp.fc1.weight": "up.weight",
    "mlp.fc1.bias": "up.bias",
    "mlp.fc2.weight": "down.weight",
    "mlp.fc2.bias": "down.bias",
}


def why_not(trunk: nn.Module) -> str | None:
    """Why a timm model is no ViT that converts, in a few words; None where it is one."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_relpos import VisionTransformerRelPos

    if not isinstance(trunk, VisionTransformer | Eva | VisionTransformerRelPos):
        return f"a {type(trunk).__name__} is no ViT"
    if type(trunk.patch_embed.proj) is not nn.Conv2d or hasattr(trunk.patch_embed, "backbone"):
        return "it has a convolutional stem in front of the ViT"
    if reason := timm_block.why_not(trunk.blocks[0]) or timm_block.why_not_turned(getattr(trunk, "rope", None)):
        return reason
    if getattr(trunk, "shared_rel_pos", None) is not None:
        return "it has relative positions that its layers share"
    if getattr(trunk, "reg_token", None) is not None:
        return "it has register tokens"
    if trunk.global_pool not in ("token", "avg", "map"):
        return f"it pools by {trunk.global_pool!r}"
    if trunk.global_pool == "map" and type(trunk.blocks[0].mlp).__name__ in timm_block.GATED:
        return "it pools by attention behind gated mixers"
    return None


def from_tower(tower: Any) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """An open_clip `TimmModel` that `why_not` has nothing against -> model, processor, report."""
    trunk = tower.trunk
    state: dict[str, Tensor] = trunk.state_dict()
    patch, token = state["patch_embed.proj.weight"], state.get("cls_token")
    cells, table = trunk.patch_embed.num_patches, state.get("pos_embed")
    positions = torch.zeros(cells, len(patch)) if table is None else table[0]  # relative positions only
    if token is not None and len(positions) == cells:
        positions = torch.cat([torch.zeros_like(positions[:1]), positions])
    bias = state.get("patch_embed.proj.bias")
    tensors = vit.stem(patch, bias, positions, None if token is None else token.reshape(-1))
    for i in range(len(trunk.blocks)):
        tensors |= timm_block.tensors(state, f"blocks.{i}.", f"encoder.layers.{i}.", trunk)
    tensors |= _norm(state, "norm_pre", "embedding_norm")
    final, last = _norm(state, "norm", "encoder.norm"), _norm(state, "fc_norm", "head.norm")
    projection = _projection(tower)
    if trunk.global_pool == "token" and projection and not last:  # the norm of the one token that is projected
        final, last = {}, {name.replace("encoder.norm", "head.norm"): value for name, value in final.items()}
    tensors |= final | last | projection
    if last and not projection:
        raise UserError("a norm behind the pooling without a projection does not convert; take another model")
    readout: dict[str, Any] | str = "mean" if trunk.global_pool == "avg" else "asked"
    if trunk.global_pool == "map":
        tensors |= _pooler(state)
        sizes = {"heads": trunk.attn_pool.num_heads, "hidden": len(state["attn_pool.mlp.fc1.weight"])}
        readout = {"kind": "attention", **sizes, "own": token is not None}
    size = trunk.patch_embed.img_size[0]
    mean, std = _pixels(tower)
    picture = vit.picture(patch, bias is not None, len(positions) - (token is not None), mean, std)
    notes = (
        [] if picture.size == size else [f"pictures of {size} pixels: the last {size - picture.size} were never read"]
    )
    return vit.build(
        "open_clip",
        tensors,
        replace(timm_block.spec(trunk), readout=readout),
        picture=picture,
        hidden_summary=token is None,
        fresh=("tokenizers.summary.",) if token is None else (),
        notes=tuple(notes),
    )


def _norm(state: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{e}": state[f"{theirs}.{e}"] for e in ("weight", "bias") if f"{theirs}.{e}" in state}


def _projection(tower: Any) -> dict[str, Tensor]:
    """The linear map behind the pooling: the trunk's own or open_clip's, or none."""
    linear = getattr(tower.head, "proj", None) or tower.trunk.head
    if isinstance(linear, nn.Identity):
        return {}
    if not isinstance(linear, nn.Linear):
        raise UserError(f"a projection by {type(linear).__name__} does not convert; take another model")
    own = {"head.projection.weight": linear.weight.detach()}
    return own if linear.bias is None else own | {"head.projection.bias": linear.bias.detach()}


def _pooler(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SigLIP's attention pooling; its query is a projected constant, which is a constant."""
    out = {f"pooling.{our}": state[f"attn_pool.{k}"] for k, our in POOLER.items()}
    latent = state["attn_pool.latent"].reshape(1, -1)
    out["pooling.query"] = nn.functional.linear(latent, state["attn_pool.q.weight"], state["attn_pool.q.bias"])
    return out


def _pixels(tower: Any) -> tuple[Any, Any]:
    """Mean and standard deviation that a tower expects: open_clip's, else the trunk's own."""
    default = tower.trunk.default_cfg
    mean = getattr(tower, "image_mean", None) or default.get("mean")
    return mean, getattr(tower, "image_std", None) or default.get("std")
