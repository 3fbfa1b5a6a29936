"""Official Uni-Perceiver v1 and Uni-Perceiver-MoE checkpoints <-> models of this framework (spec sections 1, 3, 4, 6).

    generalist convert uni-perceiver CKPT --out DIR            dense or MoE, torch or DeepSpeed, prompt-tuned or not
    generalist convert uni-perceiver DIR --out CKPT.pth        and back, without a bit changed

All sizes are read from the tensors. The number of heads is not in the file: width / 64 as in every published size
(4 below width 192), or `heads`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import UserError
from generalist.config import GeneralistConfig
from generalist.convert import uni_perceiver_keys as keys
from generalist.convert.files import load_tensors
from generalist.convert.report import Report, fill, save
from generalist.convert.uni_perceiver_tables import arrange
from generalist.convert.vocabulary import tokenizer_setting
from generalist.model import GeneralistModel
from generalist.moe import has_experts
from generalist.moe_keys import is_expert_key, moe_settings, moe_state_dict, official_state_dict
from generalist.processor import GeneralistProcessor
from tokenizers_mod.modalities import modality_settings
from tokenizers_mod.summary import Summary
from tokenizers_mod.text import Text
from tokenizers_mod.video import IMAGENET_MEAN, IMAGENET_STD, Picture, Video

OPTIONS = ("heads", "size", "frames", "spatial", "vision_type", "head_scale", "lenient", "dialect", "end_id", "spe_id")
UNUSED = "unused.safetensors"  # tensors of the official file without effect, kept for the way back
SHORT_SIDE = 256 / 224  # evaluation's resize before the centre crop (spec 1.14)


def convert(checkpoint: Path, out: Path, **options: Any) -> Report:
    """Read an official checkpoint and write a model folder; or the reverse where `checkpoint` is a model folder.

    Options as in `build`, and lenient=True to keep fresh weights where the file lacks some.
    """
    if (checkpoint / "config.json").is_file():
        return export(checkpoint, out, options.get("dialect") or "torch")
    tensors, container = load_tensors(checkpoint)
    model, processor, report, unused = build(tensors, container=container, **options)
    save(model, processor, report, out)
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
    dialect: str = "",
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
            raise UserError(f"{key}={value!r}; valid: {', '.join(valid)}")
    official, report = canonical(tensors, container)
    if vision_type == "fold" or (vision_type == "auto" and "deepspeed" in report.kind):
        _fold_type(official, report)
    for name in (keys.CONV, keys.SPATIAL, keys.TEMPORAL):
        _need(official, name)
    side, scale = arrange(official, report, size, frames, spatial)
    words = tokenizer_setting(len(_need(official, keys.ANCHOR)), end_id, spe_id)
    config, unused = _config(official, report, heads, head_scale, side, scale, words)
    scales = config.scales or []
    if head_scale not in scales:
        raise UserError(f"head_scale={head_scale!r} is no logit scale of the file: {', '.join(scales)}")
    model = GeneralistModel(config).eval()
    fill(model, _ours(official, report, unused, head_scale), report, lenient)
    report.unused += sorted(unused)
    processor = GeneralistProcessor(
        tokenizer=_text(config).hf_tokenizer(), modalities=config.modalities, tasks=_tasks(config)
    )
    return model, processor, report, unused


def canonical(tensors: dict[str, Tensor], container: str = "") -> tuple[dict[str, Tensor], Report]:
    """Any dialect -> torch names, aliases checked and dropped."""
    own, others = keys.strip_prefix(tensors)
    old = keys.is_deepspeed(own)
    report = Report("uni-perceiver, deepspeed dialect" if old else "uni-perceiver, torch dialect")
    if keys.ANCHOR not in own:
        raise UserError(f"not a Uni-Perceiver checkpoint: no {keys.ANCHOR} among its {len(tensors)} tensors")
    report.unexpected += others
    official = keys.to_torch_dialect(own) if old else dict(own)
    for name in [n for n in official if n.startswith("visual_embed.")]:
        report.unused.append(name)
        del official[name]
    for name in list(official):  # one LayerNorm under two names: the video one counts (spec 6)
        if name.startswith("video_embed.embeddings_norm."):
            twin = "token_embed." + name[len("video_embed.") :]
            if twin in official and not torch.equal(official[twin], official[name]):
                report.notes.append(f"{twin} differs from {name}; the latter is taken")
            official[twin] = official.pop(name)
    bias = official.pop("s_token_bias", None)
    if bias is not None:
        official["token_embed.s_token_bias"] = bias
    for name in list(official):
        head, _, rest = name.partition("fused_encoder.layers.")
        number, _, inner = rest.partition(".")
        if head == "" and inner in keys.MOE_DENSE:
            official[f"fused_encoder.layers.{number}.{keys.MOE_DENSE[inner]}"] = official.pop(name)
    return official, report


def _fold_type(official: dict[str, Tensor], report: Report) -> None:
    """patch bias += vision type row: the same numbers as adding the row to every patch (spec 1.6)."""
    row, bias = official.get(keys.VISION_TYPE), "video_embed.embeddings.bias"
    if row is not None and bias in official:
        official[bias] = official[bias] + row[0]
        official[keys.VISION_TYPE] = torch.zeros_like(row)
        report.notes.append("the vision type row is folded into the patch bias")


def _config(
    official: dict[str, Tensor],
    report: Report,
    heads: int,
    head_scale: str,
    side: int | list[int],
    scale: float,
    tokenizer: str,
) -> tuple[GeneralistConfig, dict[str, Tensor]]:
    numbers = {int(m[1]) for k in official if (m := re.match(r"fused_encoder\.layers\.(\d+)\.", k))}
    if not numbers or numbers != set(range(len(numbers))):
        raise UserError(f"the file's encoder layers are {sorted(numbers)}, expected 0, 1, 2, ... without a gap")
    width = _need(official, keys.ANCHOR).shape[1]
    if not heads:
        heads = width // 64 if width >= 192 and width % 64 == 0 else 4
        report.notes.append(f"{heads} attention heads assumed for width {width}: the file does not say (--heads)")
    first = "fused_encoder.layers.0."
    hidden = next(
        (
            v.shape[0]
            for k, v in official.items()
            if k.startswith(first + "linear1.") and v.ndim == 2 and k.endswith("weight") and "gate" not in k
        ),
        0,
    )
    frames, channels, patch = len(official[keys.TEMPORAL]), *official[keys.CONV].shape[1:3]
    prompt, candidate_prompt = official.get(first + keys.PROMPT), official.get(first + keys.CANDIDATE_PROMPT)
    unused: dict[str, Tensor] = {}
    types = official.pop(keys.TYPES, None)
    if types is not None:
        official["text.type"] = types[:1]
        unused |= {keys.TYPES: types[1:]} if len(types) > 1 else {}
    if keys.VISION_TYPE in official:
        unused[keys.VISION_TYPE] = official.pop(keys.VISION_TYPE)
    positions = len(_need(official, "token_embed.embeddings_pos.position_embeddings.weight"))
    text = Text(
        tokenizer=tokenizer,
        max_length=min(128, positions),
        positions=positions,
        type_row=types is not None,
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
    scales = [k.rpartition("logit_scale_")[2] for k in official if "loss_prepare.logit_scale_" in k]
    moe = moe_settings(official)
    config = GeneralistConfig(
        hidden_size=width,
        num_hidden_layers=len(numbers),
        num_attention_heads=heads,
        intermediate_size=hidden,
        layer_scale=1e-3 if first + "gamma_1" in official else 0.0,
        drop_path=0.0,
        initial_scale=1 / 0.07,
        embedding_norm=True,
        output_head=True,
        prompts=0 if prompt is None else len(prompt),
        candidate_prompts=None if candidate_prompt is None else len(candidate_prompt),
        linear_heads={head_scale: len(official["fc_prompt.weight"])} if "fc_prompt.weight" in official else None,
        modalities=modality_settings(
            {"summary": Summary(as_text=text.spe), "text": text, "image": picture, "video": clip}
        ),
        scales=["default", *sorted(scales)],
        zero_shot_scale=next((name for name in keys.ZERO_SHOT if name in scales), "default"),
        writing_scale=next((name for name in keys.WRITING if name in scales), ""),
        **moe,
    )
    return config, unused


def _ours(official: dict[str, Tensor], report: Report, unused: dict[str, Tensor], head_scale: str) -> dict[str, Tensor]:
    """Torch names -> this model's; what nothing takes goes to the report."""
    out: dict[str, Tensor] = {}
    layers: dict[int, dict[str, Tensor]] = {}
    for name, value in official.items():
        if match := re.match(r"fused_encoder\.layers\.(\d+)\.(.*)$", name):
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
        else:
            report.unexpected.append(name)
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
            elif name not in (keys.PROMPT, keys.CANDIDATE_PROMPT) and not is_expert_key(name):
                report.unexpected.append(f"fused_encoder.layers.{number}.{name}")
    for name, ours in ((keys.PROMPT, "prompts.vectors"), (keys.CANDIDATE_PROMPT, "prompts.candidate_vectors")):
        found = [layer[name] for _, layer in sorted(layers.items()) if name in layer]
        if found:
            out[ours] = torch.stack(found)
    if "prompts.candidate_vectors" in out and "prompts.vectors" not in out:  # candidates alone have prompts
        candidates = out["prompts.candidate_vectors"]
        out["prompts.vectors"] = candidates.new_zeros(len(candidates), 0, candidates.shape[2])
    return out


# --- and back ---


def to_official(model: GeneralistModel, unused: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A model of this layout -> the official torch names. unused: tensors without effect, zeros where not given."""
    return official_names(model.state_dict(), model.config, unused)


def official_names(
    state: dict[str, Tensor], config: GeneralistConfig, unused: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Tensors by this model's names (weights, or their gradients) -> by the official torch names."""
    width, patch = config.hidden_size, _image(config).patch
    unused = unused or {}
    out: dict[str, Tensor] = {}
    mixed = has_experts(config)  # files with experts name the attention's linears differently in all layers
    names = {old: new for new, old in keys.MOE_DENSE.items()} if mixed else {}
    for number in range(config.num_hidden_layers):
        prefix, theirs_prefix = f"encoder.layers.{number}.", f"fused_encoder.layers.{number}."
        block = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        experts = set()
        if mixed:
            dead = {k[len(theirs_prefix) :]: v for k, v in unused.items() if k.startswith(theirs_prefix)}
            found = official_state_dict(block, dead)
            experts = {k.partition(".experts.")[0] for k in found if ".experts." in k}
            out |= {
                theirs_prefix + k: v for k, v in found.items() if re.split(r"\.(?:gate|experts)\.", k)[0] in experts
            }
        for theirs, ours in keys.LAYER.items():
            theirs = names.get(theirs, theirs)
            if ours in block and theirs.rpartition(".")[0] not in experts:
                out[theirs_prefix + theirs] = block[ours]
        for theirs, ours in ((keys.PROMPT, "prompts.vectors"), (keys.CANDIDATE_PROMPT, "prompts.candidate_vectors")):
            name = theirs_prefix + theirs
            if ours in state and (len(state[ours][number]) or name in unused):
                out[name] = state[ours][number]
    for theirs, ours in keys.TOP.items():
        if ours in state:
            out[theirs] = state[ours]
    out[keys.CONV] = state["tokenizers.image.projection.weight"].reshape(width, -1, patch, patch)
    rest = unused.get(keys.TYPES, torch.zeros(1, width))
    out[keys.TYPES] = torch.cat([state["tokenizers.text.type_row.weight"], rest.to(out[keys.ANCHOR].dtype)])
    out[keys.VISION_TYPE] = unused.get(keys.VISION_TYPE, torch.zeros(1, width))
    for end in ("weight", "bias"):
        out[f"video_embed.embeddings_norm.{end}"] = out[f"token_embed.embeddings_norm.{end}"]
    if "token_embed.s_token_bias" in out:
        out["s_token_bias"] = out["token_embed.s_token_bias"]
    for name in (config.scales or [])[:]:
        if name in keys.SCALES:
            out[f"loss_prepare.logit_scale_{name}"] = state[f"log_scales.{name}"].reshape(())
    for name in config.linear_heads or {}:
        out |= {f"fc_prompt.{end}": state[f"linear_heads.{name}.linear.{end}"] for end in ("weight", "bias")}
        out["similarity_weight"] = state[f"linear_heads.{name}.alpha"].reshape(())
    return out


def export(folder: Path, out: Path, dialect: str = "torch") -> Report:
    """A model folder -> an official checkpoint file ({"model": ...}, or {"module": ...} in the DeepSpeed dialect)."""
    from safetensors.torch import load_file

    model = GeneralistModel.from_pretrained(folder)
    unused = load_file(folder / UNUSED) if (folder / UNUSED).is_file() else None
    official = to_official(model, unused)
    official = keys.to_deepspeed_dialect(official) if dialect == "deepspeed" else official
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"module" if dialect == "deepspeed" else "model": official}, out)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {out} ({error}); choose another --out file") from error
    return Report(f"to uni-perceiver, {dialect} dialect", len(official), sum(v.numel() for v in official.values()))


# --- small parts ---


def _need(official: dict[str, Tensor], name: str) -> Tensor:
    if name not in official:
        raise UserError(f"not a complete Uni-Perceiver checkpoint: it lacks {name}")
    return official[name]


def _text(config: GeneralistConfig) -> Text:
    return Text.from_settings(config.modalities["text"])  # type: ignore[index,return-value]


def _image(config: GeneralistConfig) -> Video:
    settings = {k: v for k, v in config.modalities["image"].items() if k != "class"}  # type: ignore[index]
    return Picture.from_settings(settings)  # type: ignore[return-value]


def _per_channel(values: tuple[float, ...], channels: int) -> list[float] | float:
    return list(values) if channels == len(values) else 0.5


def _tasks(config: GeneralistConfig) -> dict[str, Any]:
    """What a prediction may ask for, by the logit scale it was trained with (spec 1.8, 1.9)."""
    known = set(config.scales or [])
    return {name: {"scale": name, **about} for name, about in keys.TASKS.items() if name in known}
