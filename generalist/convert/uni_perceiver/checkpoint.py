"""Official Uni-Perceiver v1 and Uni-Perceiver-MoE checkpoints <-> models of this framework (spec sections 1, 3, 4, 6).

    generalist convert uni-perceiver CKPT --out DIR            dense or MoE, torch or DeepSpeed, prompt-tuned or not
    generalist convert uni-perceiver DIR --out CKPT.pth        and back, without a bit changed

All sizes are read from the tensors. The number of heads is not in the file: width / 64 as in every published size
(4 below width 192), or `heads`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.convert.files import load_tensors
from generalist.convert.report import Origin, Report, fill, positive, save
from generalist.convert.uni_perceiver import keys
from generalist.convert.uni_perceiver.canonical import canonical, fold_type, heads_of, vocabulary_of
from generalist.convert.uni_perceiver.expert_keys import moe_settings, moe_state_dict
from generalist.convert.uni_perceiver.tables import arrange
from generalist.convert.uni_perceiver_back import UNUSED, export, official_names, to_official
from generalist.data.base.errors import UserError, nearest
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.video import IMAGENET_MEAN, IMAGENET_STD, Picture, Video

OPTIONS = ("heads", "size", "frames", "spatial", "vision_type", "head_scale", "lenient", "dialect", "end_id", "spe_id")
__all__ = ["build", "canonical", "convert", "export", "official_names", "to_official"]
SHORT_SIDE = 256 / 224  # evaluation's resize before the centre crop (spec 1.14)


def convert(checkpoint: Path, out: Path, **options: Any) -> Report:
    """Read an official checkpoint and write a model folder; or the reverse where `checkpoint` is a model folder.

    Options as in `build`, and lenient=True to keep fresh weights where the file lacks some.
    """
    dialect = options.pop("dialect", "")
    if (checkpoint / "config.json").is_file():
        if options:
            name = next(iter(options)).replace("_", "-")
            raise UserError(f"--{name} does not apply on the way back to an official file; leave it out")
        return export(checkpoint, out, dialect or "torch")
    if dialect:
        raise UserError("--dialect applies on the way back to an official file, and is read off one; leave it out")
    tensors, container = load_tensors(checkpoint)
    model, processor, report, unused = build(tensors, container=container, **options)
    save(model, processor, report, out, Origin("uni-perceiver", checkpoint.resolve(), options))
    if unused:
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in unused.items()}, out / UNUSED)
    return report


def build(
    tensors: dict[str, Tensor],
    container: str = "",
    heads: int = 0,
    size: int | list[int] = 0,
    frames: int = 0,
    spatial: str = "formula",
    vision_type: str = "auto",
    head_scale: str = "img_cls",
    lenient: bool = False,
    end_id: int = 0,
    spe_id: int = 0,
) -> tuple[GeneralistModel, GeneralistProcessor, Report, dict[str, Tensor]]:
    """Official tensors -> model, processor, report and the tensors without effect.

    size: pixels a side, or [height, width], 0 = the file's; another size needs another position table: "formula" of
    `spatial` computes it (the official default), "interpolate" resizes the file's bilinearly. frames: rows of the
    temporal table, 0 = the file's, else resized linearly. vision_type: "fold" adds the vision type row to the patch
    bias, "ignore" leaves it out, "auto" folds it for DeepSpeed files only (spec 1.6). head_scale: logit scale that a
    linear head belongs to. end_id, spe_id: of a vocabulary whose last five entries are not the special tokens.
    """
    for key, value, valid in (
        ("spatial", spatial, ("formula", "interpolate")),
        ("vision_type", vision_type, ("auto", "fold", "ignore")),
    ):
        if value not in valid:
            raise UserError(f"{key}={value!r}; {nearest(value, valid)}")
    positive(heads=heads, size=size, frames=frames, end_id=end_id, spe_id=spe_id)
    official, report = canonical(tensors, container)
    if vision_type == "fold" or (vision_type == "auto" and "deepspeed" in report.kind):
        fold_type(official, report)
    for name in (keys.CONV, keys.SPATIAL, keys.TEMPORAL):
        _need(official, name)
    side, scale = arrange(official, report, size, frames, spatial)
    unused: dict[str, Tensor] = {}
    words = vocabulary_of(official, report, unused, end_id, spe_id)
    if any(name in official for name in keys.HEAD) and head_scale not in keys.SCALES:
        raise UserError(f"head_scale={head_scale!r} is no logit scale of the file; {nearest(head_scale, keys.SCALES)}")
    config = _config(official, report, unused, heads, head_scale, side, scale, words)
    model = GeneralistModel(config).eval()
    fill(model, _ours(official, unused, head_scale), report, lenient)
    report.unused += sorted(unused)
    processor = GeneralistProcessor(
        tokenizer=_text(config).hf_tokenizer(), modalities=config.modalities, tasks=_tasks(config)
    )
    return model, processor, report, unused


def _config(
    official: dict[str, Tensor],
    report: Report,
    unused: dict[str, Tensor],
    heads: int,
    head_scale: str,
    side: int | list[int],
    scale: float,
    tokenizer: str,
) -> GeneralistConfig:
    """The configuration of a file, which has a part if it has any tensor of it; the useless goes to `unused`."""
    layers: dict[int, dict[str, Tensor]] = {}
    for name, value in official.items():
        if match := keys.LAYERS.match(name):
            layers.setdefault(int(match[1]), {})[match[2]] = value
    if not layers or set(layers) != set(range(len(layers))):
        raise UserError(f"the file's encoder layers are {sorted(layers)}, expected 0, 1, 2, ... without a gap")
    width = official[keys.ANCHOR].shape[1]
    inside = {name for layer in layers.values() for name in layer}
    hidden = next((len(v) for layer in layers.values() for k, v in layer.items() if keys.HIDDEN.match(k)), 0)
    if not hidden:
        raise UserError("not a complete Uni-Perceiver checkpoint: no layer has linear1.weight")
    frames, channels, patch = len(official[keys.TEMPORAL]), *official[keys.CONV].shape[1:3]
    prompt, candidate_prompt = (_prompts(layers, name) for name in (keys.PROMPT, keys.CANDIDATE_PROMPT))
    if (types := official.pop(keys.TYPES, None)) is not None:
        official["text.type"] = types[:1]
        unused |= {keys.TYPES: types[1:]} if len(types) > 1 else {}
    if keys.VISION_TYPE in official:
        unused[keys.VISION_TYPE] = official.pop(keys.VISION_TYPE)
    classes = next((len(official[k]) for k in ("fc_prompt.weight", "fc_prompt.bias") if k in official), 0)
    positions = len(_need(official, "token_embed.embeddings_pos.position_embeddings.weight"))
    text = Text(
        tokenizer=tokenizer,
        max_length=min(128, positions),
        positions=positions,
        type_row=True,
        spe_bias="token_embed.s_token_bias" in official,
        word_std=0.02,
        position_std=0.02,
    )
    shape: dict[str, Any] = {"size": side, "patch": patch, "channels": channels, "frames": frames}
    picture = Picture(
        **shape,
        mean=_per_channel(IMAGENET_MEAN, channels),
        std=_per_channel(IMAGENET_STD, channels),
        short_side=SHORT_SIDE,
        coordinate_scale=scale,
    )
    clip = Video(**shape, shares="image")
    own = [k.rpartition("logit_scale_")[2] for k in official if "loss_prepare.logit_scale_" in k]
    scales = sorted({*own, *keys.SCALES})
    return GeneralistConfig(
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=heads_of(width, heads, report),
        intermediate_size=hidden,
        layer_scale=1e-3 if inside & {"gamma_1", "gamma_2"} else 0.0,
        drop_path=0.0,
        initial_scale=1 / 0.07,
        embedding_norm=True,
        output_head=True,
        prompts=prompt or 0,
        candidate_prompts=candidate_prompt,
        linear_heads={head_scale: classes} if classes else None,
        modalities=modality_settings(
            {"summary": Summary(as_text=text.spe), "text": text, "image": picture, "video": clip}
        ),
        scales=["default", *scales],
        zero_shot_scale=next((name for name in keys.ZERO_SHOT if name in scales), "default"),
        writing_scale=next((name for name in keys.WRITING if name in scales), ""),
        **moe_settings(official),
    )


def _prompts(layers: dict[int, dict[str, Tensor]], name: str) -> int | None:
    """How many prompts a layer has, None without. UserError where the layers differ."""
    found = {number: len(layer[name]) for number, layer in layers.items() if name in layer}
    if not found:
        return None
    if len(found) < len(layers):
        raise UserError(f"the file lacks fused_encoder.layers.{min(set(layers) - set(found))}.{name}; fetch it again")
    if len(set(found.values())) > 1:
        raise UserError(f"layers have other numbers of prompts: {found}; one number is needed")
    return next(iter(found.values()))


def _ours(official: dict[str, Tensor], unused: dict[str, Tensor], head_scale: str) -> dict[str, Tensor]:
    """Torch names -> this model's; what has no effect goes to `unused`."""
    out: dict[str, Tensor] = {}
    layers: dict[int, dict[str, Tensor]] = {}
    for name, value in official.items():
        if match := keys.LAYERS.match(name):
            layers.setdefault(int(match[1]), {})[match[2]] = value
        elif name in keys.TOP:
            out[keys.TOP[name]] = value
        elif name == keys.CONV:
            out["tokenizers.image.projection.weight"] = value.flatten(1)
        elif name == "text.type":
            out["tokenizers.text.type_row.weight"] = value
        elif name.startswith("loss_prepare.logit_scale_"):
            out["log_scales." + name[len("loss_prepare.logit_scale_") :]] = value.reshape(1)
        elif name in ("fc_prompt.weight", "fc_prompt.bias"):
            out[f"linear_heads.{head_scale}.linear.{name.rpartition('.')[2]}"] = value
        elif name == "similarity_weight":
            out[f"linear_heads.{head_scale}.alpha"] = value.reshape(1)
    # questions of the user's own: the official "downstream" scale serves tasks that training never saw
    out["log_scales.default"] = out.get("log_scales.downstream", torch.tensor([1 / 0.07]).log()).clone()
    for number, layer in sorted(layers.items()):
        experts, dead = moe_state_dict(layer)
        out |= {f"encoder.layers.{number}.{name}": value for name, value in experts.items()}
        unused |= {f"fused_encoder.layers.{number}.{name}": value for name, value in dead.items()}
        for name, value in layer.items():
            if name in (keys.PROMPT, keys.CANDIDATE_PROMPT) and not len(value):  # a table without a row
                unused[f"fused_encoder.layers.{number}.{name}"] = value
            if name in keys.LAYER:
                out[f"encoder.layers.{number}.{keys.LAYER[name]}"] = value
    for name, ours in ((keys.PROMPT, "prompts.vectors"), (keys.CANDIDATE_PROMPT, "prompts.candidate_vectors")):
        found = [layer[name] for _, layer in sorted(layers.items()) if name in layer]
        if found:
            if len({value.shape for value in found}) > 1:
                raise UserError(f"{name} has other sizes in other layers: {sorted({tuple(v.shape) for v in found})}")
            out[ours] = torch.stack(found)
    if "prompts.candidate_vectors" in out and "prompts.vectors" not in out:  # candidates alone have prompts
        candidates = out["prompts.candidate_vectors"]
        out["prompts.vectors"] = candidates.new_zeros(len(candidates), 0, candidates.shape[2])
    return out


# --- small parts ---


def _need(official: dict[str, Tensor], name: str) -> Tensor:
    if name not in official:
        raise UserError(f"not a complete Uni-Perceiver checkpoint: it lacks {name}")
    return official[name]


def _text(config: GeneralistConfig) -> Text:
    return Text.from_settings((config.modalities or {})["text"])


def _per_channel(values: tuple[float, ...], channels: int) -> list[float] | float:
    return list(values) if channels == len(values) else 0.5


def _tasks(config: GeneralistConfig) -> dict[str, Any]:
    """What a prediction may ask for, by the logit scale it was trained with (spec 1.8, 1.9)."""
    known = set(config.scales or [])
    return {name: {"scale": name, **about} for name, about in keys.TASKS.items() if name in known}
