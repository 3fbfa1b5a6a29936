"""Towers of open_clip as models of this framework: the same features for the same pixels or texts.

generalist convert open-clip ViT-B-32:openai --out DIR          both towers as one model (`generalist.convert.pairs`)
generalist convert open-clip ViT-B-32:openai --tower image ...  the image tower as the shared encoder
generalist convert open-clip ViT-B-32:weights.pt --tower text   the text tower (`clip_text`), from a file, read safely
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist.convert.files import load_tensors
from generalist.convert.pairs import open_clip as pairs
from generalist.convert.pairs.build import build
from generalist.convert.report import Origin, Report, real_numbers, save
from generalist.convert.towers import clip_text, timm_vit, vit
from generalist.data.base.errors import UserError, nearest
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.recipe.encoder import EncoderSpec

OPTIONS = ("tower", "lenient", "tokenizer")
TOWERS = ("both", "image", "text")
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


def convert(
    checkpoint: Path, out: Path, tower: str = "both", lenient: bool = False, tokenizer: Path | None = None
) -> Report:
    """Both towers of ARCH, ARCH:PRETRAINED, ARCH:FILE or a folder, or one ("image" or "text"), as a model folder.

    lenient: keep fresh weights where the file lacks some, and name them. tokenizer: the folder of one that open_clip
    would fetch.
    """
    if tower not in TOWERS:
        raise UserError(f"tower {tower!r}; {nearest(tower, TOWERS)}")
    name = str(checkpoint)
    taken = Report("open_clip")
    if tower == "both":
        taken.kind = f"open_clip {checkpoint}"
        pair, _ = pairs.pair_of(pairs.source_of(name, tokenizer), taken, lenient)
        model, processor, report = build(pair, taken)
        options = {"tower": tower, "lenient": lenient, "tokenizer": tokenizer}
        save(model, processor, report, out, origin_of(name, options))
        return report
    if tower == "image":
        model, processor, report = from_visual(image_tower(name, taken, lenient))
    else:
        model, processor, report = from_text(text_tower(name, taken, lenient))
    report.kind, report.dtype = f"open_clip {checkpoint}", taken.dtype
    report.missing += taken.missing
    report.unexpected += taken.unexpected
    report.notes += taken.notes
    if not name.partition(":")[2]:
        report.notes.append("no weights were given: all are fresh")
    save(model, processor, report, out, origin_of(name, {"tower": tower, "lenient": lenient}))
    return report


def origin_of(name: str, options: dict[str, Any]) -> Origin:
    """What a passport holds: files by their whole path, options that were given."""
    arch, _, weights = name.partition(":")
    if Path(name).is_dir():
        name = str(Path(name).resolve())
    elif Path(weights).is_file():
        name = f"{arch}:{Path(weights).resolve()}"
    given = {key: value.resolve() if isinstance(value, Path) else value for key, value in options.items() if value}
    return Origin("open-clip", Path(name), given)


def image_tower(name: str, report: Report | None = None, lenient: bool = False) -> nn.Module:
    """The image tower of an open_clip model by its name. UserError for an unknown model or a file that does not fit.

    report: is told what of the file was taken; lenient: of a file that lacks some weights fresh ones are kept.
    """
    report = report or Report("open_clip")
    import open_clip
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    arch, weights, tagged = pairs.named(name)
    if tagged:
        return created(arch, weights).visual.eval()
    # the tower alone: some text towers of the package are fetched before they can be made
    settings = open_clip.get_model_config(arch)
    vision = CLIPVisionCfg(**settings["vision_cfg"])
    visual = _build_vision_tower(settings["embed_dim"], vision, settings.get("quick_gelu", False))
    if weights:
        own = {k.removeprefix("visual."): v for k, v in read(weights).items() if k.startswith("visual.")}
        take(visual, own, f"{weights} does not fit {arch}", report, lenient)
    return visual.eval()


def text_tower(name: str, report: Report | None = None, lenient: bool = False) -> nn.Module:
    """An open_clip model by its name, for its text tower. UserError where that does not convert."""
    report = report or Report("open_clip text")
    import open_clip
    from open_clip.model import CLIPTextCfg, _build_text_tower

    arch, weights, tagged = pairs.named(name)
    settings = open_clip.get_model_config(arch)
    if reason := clip_text.why_not(settings["text_cfg"]):
        raise UserError(f"only CLIP's own text towers convert: {reason}; take --tower image or another model")
    if tagged:
        model = created(arch, weights)
        return getattr(model, "text", model).eval()
    text = _build_text_tower(
        settings["embed_dim"], CLIPTextCfg(**settings["text_cfg"]), settings.get("quick_gelu", False)
    )
    if weights:  # some files hold the tower under "text.", some its parts beside the other tower
        tensors = {k.removeprefix("text."): v for k, v in read(weights).items() if not k.startswith("visual.")}
        own = {k: v for k, v in tensors.items() if k not in BESIDE}
        take(text, own, f"{weights} does not fit {arch}", report, lenient)
    return text.eval()


BESIDE = ("logit_scale", "logit_bias", "attn_mask", "context_length", "vocab_size", "input_resolution")


def created(arch: str, tag: str) -> Any:
    """A model with open_clip's own weights, which it fetches."""
    import open_clip

    try:
        return open_clip.create_model(arch, pretrained=tag)
    except (OSError, RuntimeError) as error:
        line = str(error).splitlines()[0][:120]
        raise UserError(f"open_clip cannot load {arch}:{tag} ({line}); fetch the weights, give {arch}:FILE") from error


def read(weights: str) -> dict[str, Tensor]:
    """The tensors of a weight file, safely."""
    return {k.removeprefix("module."): v for k, v in load_tensors(Path(weights))[0].items()}


def take(tower: nn.Module, tensors: dict[str, Tensor], what: str, report: Report, lenient: bool) -> None:
    """Load a tower's tensors, all of them and no others; UserError naming the first that does not fit.

    Lenient: those that the file lacks stay fresh, and those that the tower lacks are left out; the report names both.
    """
    state = tower.state_dict()
    real_numbers({k: v for k, v in tensors.items() if k in state and state[k].is_floating_point()}, report)
    lacking = [name for name in state if name not in tensors]
    others = [name for name in tensors if name not in state]
    if (lacking or others) and not lenient:
        word = f"it lacks {lacking[0]}" if lacking else f"it has {others[0]} besides"
        raise UserError(f"{what}: {word} ({len(lacking)} missing, {len(others)} unexpected); --lenient goes on without")
    report.missing += lacking
    report.unexpected += others
    try:
        tower.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f"{what}: {str(error).splitlines()[1].strip()[:200]}") from error


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
        raise UserError(f"only ViT towers convert: {reason}; take a ViT, SigLIP, EVA or PE model")
    if isinstance(visual, TimmModel):
        return timm_vit.from_tower(visual)
    blocks = visual.transformer.resblocks
    state: dict[str, Tensor] = visual.state_dict()
    patch, positions = state["conv1.weight"], state["positional_embedding"]
    tensors = vit.stem(patch, None, positions, state["class_embedding"])
    tensors |= blocks_of(state, len(blocks))
    mean_of_normed = visual.attn_pool is None and visual.pool_type == "avg" and not visual.final_ln_after_pool
    post = "encoder.norm" if mean_of_normed else "head.norm"
    for theirs, ours in (("ln_pre", "embedding_norm"), ("ln_post", post)):
        own = {f"{ours}.{end}": state[f"{theirs}.{end}"] for end in ("weight", "bias") if f"{theirs}.{end}" in state}
        tensors |= own
    tensors["head.projection.weight"] = state["proj"].T.contiguous()
    readout: dict[str, Any] | str = "mean" if visual.pool_type == "avg" else "asked"
    if visual.attn_pool is not None:
        readout = {"kind": "attention", "heads": visual.attn_pool.attn.num_heads, "norm": True, "own": True}
        readout["size"] = len(state["attn_pool.attn.out_proj.weight"])
        tensors |= attention_pooling(visual.attn_pool)
    mean = getattr(visual, "image_mean", None) or (0.48145466, 0.4578275, 0.40821073)
    std = getattr(visual, "image_std", None) or (0.26862954, 0.26130258, 0.27577711)
    return vit.build(
        "open_clip",
        tensors,
        replace(spec_of(blocks[0]), readout=readout),
        picture=vit.picture(patch, False, len(positions) - 1, mean, std),
    )


def spec_of(block: Any) -> EncoderSpec:
    """What no tensor of a block shows."""
    activation = ACTIVATIONS[type(block.mlp.gelu).__name__]
    return EncoderSpec(heads=block.attn.num_heads, activation=activation, eps=block.ln_1.eps)


def blocks_of(state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The blocks of a tower by our names."""
    found: dict[str, Tensor] = {}
    for i in range(count):
        prefix = f"transformer.resblocks.{i}."
        found |= {f"encoder.layers.{i}.{our}": state[prefix + k] for k, our in BLOCK.items() if prefix + k in state}
    return found


def from_text(model: Any) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """The text tower of an open_clip model that `clip_text.why_not` has nothing against."""
    text = getattr(model, "text", model)  # `CLIP` holds its text tower's parts itself
    blocks, state = text.transformer.resblocks, text.state_dict()
    tensors, words = clip_text.stem(state["token_embedding.weight"], state["positional_embedding"])
    tensors |= blocks_of(state, len(blocks))
    tensors |= {f"head.norm.{end}": state[f"ln_final.{end}"] for end in ("weight", "bias")}
    if isinstance(text.text_projection, nn.Linear):
        tensors |= {f"head.projection.{end}": state[f"text_projection.{end}"] for end in ("weight", "bias")}
    else:
        tensors["head.projection.weight"] = state["text_projection"].T.contiguous()
    return clip_text.build("open_clip text", tensors, words, spec_of(blocks[0]))


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
