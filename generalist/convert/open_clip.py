"""Image towers of open_clip as models of this framework: the same features for the same pixels.

generalist convert open-clip ViT-B-32:openai --out DIR          weights by open_clip's own name (it fetches them)
generalist convert open-clip ViT-B-32:weights.pt --out DIR      from a file, read safely
generalist convert open-clip ViT-B-32 --out DIR                 fresh weights
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data.errors import UserError, nearest
from generalist.convert import vit
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


def from_visual(visual: Any) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """An open_clip `VisionTransformer` -> model, processor, report. UserError for towers of another kind."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if not isinstance(visual, VisionTransformer):
        raise UserError(f"only ViT towers convert, this is a {type(visual).__name__}; take a ViT model")
    blocks = visual.transformer.resblocks
    if type(blocks[0]) is not ResidualAttentionBlock:
        raise UserError(f"blocks of the kind {type(blocks[0]).__name__} are not those of a plain ViT")
    state: dict[str, Tensor] = visual.state_dict()
    patch, positions = state["conv1.weight"], state["positional_embedding"]
    tensors = vit.stem(patch, None, positions, state["class_embedding"])
    for i in range(len(blocks)):
        prefix = f"transformer.resblocks.{i}."
        tensors |= {f"encoder.layers.{i}.{our}": state[prefix + k] for k, our in BLOCK.items() if prefix + k in state}
    for theirs, ours in (("ln_pre", "embedding_norm"), ("ln_post", "head.norm")):
        own = {f"{ours}.{end}": state[f"{theirs}.{end}"] for end in ("weight", "bias") if f"{theirs}.{end}" in state}
        tensors |= own
    notes: tuple[str, ...] = ()
    if visual.attn_pool is None:
        tensors["head.projection.weight"] = state["proj"].T.contiguous()
        if visual.pool_type == "avg" and not visual.final_ln_after_pool:
            notes = ("the mean of the tokens is normalised, where the original averages normalised tokens",)
    else:  # its own attention over the tokens is no part of a shared encoder
        tensors = {k: v for k, v in tensors.items() if not k.startswith("head.")}
        notes = ("the attention pooling is left out: tokens are equal, features are not",)
    mean = getattr(visual, "image_mean", None) or (0.48145466, 0.4578275, 0.40821073)
    std = getattr(visual, "image_std", None) or (0.26862954, 0.26130258, 0.27577711)
    return vit.build(
        "open_clip",
        tensors,
        heads=blocks[0].attn.num_heads,
        picture=vit.picture(patch, False, len(positions) - 1, mean, std),
        activation=ACTIVATIONS[type(blocks[0].mlp.gelu).__name__],
        eps=blocks[0].ln_1.eps,
        pooling="mean" if visual.pool_type == "avg" else "asked",
        notes=notes,
    )
