"""Image towers of open_clip as models of this framework: the same features for the same pixels.

generalist convert open-clip ViT-B-32:openai --out DIR          weights by open_clip's own name (it fetches them)
generalist convert open-clip ViT-B-32:weights.pt --out DIR      from a file, read safely
generalist convert open-clip ViT-B-32 --out DIR                 fresh weights
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.errors import UserError, nearest
from generalist.convert import timm_vit, vit
from generalist.convert.files import load_tensors
from generalist.convert.report import Report, save
from generalist.model import GeneralistModel
from generalist.processor import GeneralistProcessor

OPTIONS = ()
BLOCK = {
    "ln_1.weight": "norm1.weight",
    "ln_1.bias": "norm1.bias",
    "ln_2.weight": "norm2.weight",
    "ln_2.bias": "norm2.bias",
    "attn.in_proj_weight": "mixer.qkv.weight",
    "attn.in_proj_bias": "mixer.qkv.bias",
    "attn.out_proj.weight": "mixer.out.weight",
    "attn.out_proj.bias": "mixer.out.bias",
    "mlp.c_fc.weight": "mlp.up.weight",
    "mlp.c_fc.bias": "mlp.up.bias",
    "mlp.c_proj.weight": "mlp.down.weight",
    "mlp.c_proj.bias": "mlp.down.bias",
    "ls_1.gamma": "gamma1",
    "ls_2.gamma": "gamma2",
}
ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}


def convert(checkpoint: Path, out: Path) -> Report:
    """The image tower of ARCH, ARCH:PRETRAINED or ARCH:FILE as a model folder."""
    model, processor, report = from_visual(tower(str(checkpoint)))
    report.kind = f"open_clip {checkpoint}"
    save(model, processor, report, out)
    return report


def tower(name: str) -> nn.Module:
    """The image tower of an open_clip model by its name. UserError for an unknown model or a file that does not fit."""
    import open_clip

    arch, _, weights = name.partition(":")
    if arch not in open_clip.list_models():
        raise UserError(f"open_clip has no model {arch!r}; {nearest(arch, open_clip.list_models())}")
    known = open_clip.list_pretrained_tags_by_model(arch)
    if weights and not Path(weights).is_file() and weights not in known:
        raise UserError(f"{arch} has no weights {weights!r} and there is no such file; {nearest(weights, known)}")
    if not weights or not Path(weights).is_file():
        try:
            visual = open_clip.create_model(arch, pretrained=weights or None).visual
        except (OSError, RuntimeError) as error:
            line = str(error).splitlines()[0][:120]
            raise UserError(f"open_clip cannot load {name} ({line}); fetch the weights and give {arch}:FILE") from error
    else:
        visual = open_clip.create_model(arch).visual
        tensors = {k.removeprefix("module."): v for k, v in load_tensors(Path(weights))[0].items()}
        own = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
        try:
            visual.load_state_dict(own)
        except RuntimeError as error:
            raise UserError(f"{weights} does not fit {arch}: {str(error).splitlines()[1].strip()[:200]}") from error
    return visual.eval()


def why_not(visual: Any) -> str | None:
    """Why an image tower does not convert, in a few words; None where it does."""
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if isinstance(visual, TimmModel):
        return timm_vit.why_not(visual.trunk)
    if not isinstance(visual, VisionTransformer):
        return f"a {type(visual).__name__} is no ViT"
    block = visual.transformer.resblocks[0]
    if type(block) is not ResidualAttentionBlock:
        return f"its blocks are {type(block).__name__}"
    if visual.attn_pool is not None and (visual.attn_pool_contrastive is not None or visual.pool_type != "tok"):
        return f"it pools by attention of the kind {visual.attn_pool_type or visual.pool_type!r}"
    return None


def from_visual(visual: Any) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """An open_clip `VisionTransformer` -> model, processor, report. UserError for towers of another kind."""
    from open_clip.timm_model import TimmModel

    if reason := why_not(visual):
        raise UserError(f"only plain ViT towers convert: {reason}; take a ViT or SigLIP model")
    if isinstance(visual, TimmModel):
        return timm_vit.from_tower(visual)
    blocks = visual.transformer.resblocks
    state: dict[str, Tensor] = visual.state_dict()
    patch, positions = state["conv1.weight"], state["positional_embedding"]
    tensors = vit.stem(patch, None, positions, state["class_embedding"])
    for i in range(len(blocks)):
        prefix = f"transformer.resblocks.{i}."
        tensors |= {f"encoder.layers.{i}.{our}": state[prefix + k] for k, our in BLOCK.items() if prefix + k in state}
    mean_of_normed = visual.attn_pool is None and visual.pool_type == "avg" and not visual.final_ln_after_pool
    post = "encoder.norm" if mean_of_normed else "head.norm"
    for theirs, ours in (("ln_pre", "embedding_norm"), ("ln_post", post)):
        own = {f"{ours}.{end}": state[f"{theirs}.{end}"] for end in ("weight", "bias") if f"{theirs}.{end}" in state}
        tensors |= own
    tensors["head.projection.weight"] = state["proj"].T.contiguous()
    pooling, pooler = "mean" if visual.pool_type == "avg" else "asked", None
    if visual.attn_pool is not None:
        pooling, pooler = "attention", {"heads": visual.attn_pool.attn.num_heads, "norm": True, "own": True}
        pooler["size"] = len(state["attn_pool.attn.out_proj.weight"])
        tensors |= attention_pooling(visual.attn_pool)
    mean = getattr(visual, "image_mean", None) or (0.48145466, 0.4578275, 0.40821073)
    std = getattr(visual, "image_std", None) or (0.26862954, 0.26130258, 0.27577711)
    return vit.build(
        "open_clip",
        tensors,
        heads=blocks[0].attn.num_heads,
        picture=vit.picture(patch, False, len(positions) - 1, mean, std),
        activation=ACTIVATIONS[type(blocks[0].mlp.gelu).__name__],
        eps=blocks[0].ln_1.eps,
        pooling=pooling,
        pooler=pooler,
    )


def attention_pooling(pool: Any) -> dict[str, Tensor]:
    """CoCa's pooler (2205.01917, section 3.2): of its queries the first is the feature, the others caption.

    The query is normalised and projected here once: a constant.
    """
    attention, state = pool.attn, pool.state_dict()
    if attention.in_proj_weight is not None:
        q, k, v = attention.in_proj_weight.detach().chunk(3)
    else:
        q, k, v = (state[f"attn.{n}_proj_weight"] for n in "qkv")
    q_bias, kv_bias = attention.in_proj_bias.detach().split([len(q), 2 * len(q)])
    query = pool.ln_q(pool.query[:1]).detach()
    return {
        "pooling.norm.weight": state["ln_k.weight"],
        "pooling.norm.bias": state["ln_k.bias"],
        "pooling.query": nn.functional.linear(query, q, q_bias),
        "pooling.kv.weight": torch.cat([k, v]),
        "pooling.kv.bias": kv_bias.clone(),
        "pooling.out.weight": state["attn.out_proj.weight"],
        "pooling.out.bias": state["attn.out_proj.bias"],
    }
