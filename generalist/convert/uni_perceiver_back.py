"""Models of Uni-Perceiver's layout as official checkpoint files: the way back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from generalist.convert.report import Report
from generalist.convert.uni_perceiver import keys
from generalist.convert.uni_perceiver.expert_keys import official_state_dict
from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.experts.placement import has_experts
from generalist.tokenizers_mod.vision.video import Picture, Video

UNUSED = "unused.safetensors"  # tensors of the official file without effect, kept for the way back
DIALECTS = ("torch", "deepspeed")
NEEDED = (*keys.TOP.values(), "tokenizers.image.projection.weight", "tokenizers.text.type_row.weight")
NEEDED = tuple(name for name in NEEDED if not name.endswith("spe_bias"))


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
    if keys.ANCHOR in unused:  # rows beyond the official vocabulary
        out[keys.ANCHOR] = torch.cat([out[keys.ANCHOR], unused[keys.ANCHOR].to(out[keys.ANCHOR].dtype)])
    out[keys.CONV] = state["tokenizers.image.projection.weight"].reshape(width, -1, patch, patch)
    rest = unused.get(keys.TYPES, torch.zeros(1, width))
    out[keys.TYPES] = torch.cat([state["tokenizers.text.type_row.weight"], rest.to(out[keys.ANCHOR].dtype)])
    out[keys.VISION_TYPE] = unused.get(keys.VISION_TYPE, torch.zeros(1, width))
    for end in ("weight", "bias"):
        out[f"video_embed.embeddings_norm.{end}"] = out[f"token_embed.embeddings_norm.{end}"]
    if "token_embed.s_token_bias" in out:
        out["s_token_bias"] = out["token_embed.s_token_bias"]
    for name in config.scales or []:
        if name in keys.SCALES:
            out[f"loss_prepare.logit_scale_{name}"] = state[f"log_scales.{name}"].reshape(())
    for name in config.linear_heads or {}:
        out |= {f"fc_prompt.{end}": state[f"linear_heads.{name}.linear.{end}"] for end in ("weight", "bias")}
        out["similarity_weight"] = state[f"linear_heads.{name}.alpha"].reshape(())
    return out


def export(folder: Path, out: Path, dialect: str = "torch") -> Report:
    """A model folder -> an official checkpoint file, all of it in one kind of numbers: the file's that it came from
    where no bit is lost, else float32.

    ({"model": ...} or, in the DeepSpeed dialect, {"module": ...}; a .safetensors file holds the tensors alone).
    UserError: a model of another layout, a place that cannot be written to.
    """
    from safetensors.torch import load_file, save_file

    if dialect not in DIALECTS:
        raise UserError(f"--dialect {dialect}: no such dialect; {nearest(dialect, DIALECTS)}")
    model = GeneralistModel.from_pretrained(folder)
    unused = load_file(folder / UNUSED) if (folder / UNUSED).is_file() else None
    report = Report(f"to uni-perceiver, {dialect} dialect")
    state = model.state_dict()
    if lacking := [name for name in NEEDED if name not in state]:
        raise UserError(f"{folder} has no {lacking[0]}: only models of Uni-Perceiver's layout have an official file")
    official, report.dtype = _one_dtype(to_official(model, unused), folder)
    report.notes.append(f"all numbers are {report.dtype}")
    report.notes.append(f"{model.config.num_attention_heads} attention heads: the official file does not say")
    if left := sorted(set(state) - used_names(state, model.config)):
        report.unexpected += left
        report.notes.append("what is unexpected has no place in the official file and is left out")
    official = keys.to_deepspeed_dialect(official) if dialect == "deepspeed" else official
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".safetensors":
            save_file({name: value.clone().contiguous() for name, value in official.items()}, out)
        else:
            torch.save({"module" if dialect == "deepspeed" else "model": official}, out)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {out} ({error}); choose another --out file") from error
    report.loaded, report.parameters = len(official), sum(v.numel() for v in official.values())
    return report


def used_names(state: dict[str, Tensor], config: GeneralistConfig) -> set[str]:
    """The tensors of a model that the official names have a place for."""
    names = list(state)
    marked = {name: torch.full_like(state[name], i + 1.0, dtype=torch.float64) for i, name in enumerate(names)}
    found = {int(value.flatten()[0]) for value in official_names(marked, config).values() if value.numel()}
    stacked = {name for name in state if name.startswith("prompts.")}
    return {names[i - 1] for i in found if i} | stacked


def _one_dtype(official: dict[str, Tensor], folder: Path) -> tuple[dict[str, Tensor], str]:
    """All tensors in the numbers of the file that the folder was made of where those hold them, else float32."""
    whole = {name: value.float() for name, value in official.items()}
    try:
        kind = json.loads((folder / "conversion.json").read_text(encoding="utf-8")).get("dtype", "float32")
    except (OSError, ValueError, AttributeError):
        return whole, "float32"  # a trained model: no file that it came from
    if kind in ("float16", "bfloat16", "float64"):
        narrow = {name: value.to(by_name(f"torch:{kind}")) for name, value in whole.items()}
        if all(torch.equal(narrow[name].float(), value) for name, value in whole.items()):
            return narrow, kind
    return whole, "float32"


def _image(config: GeneralistConfig) -> Video:
    settings = {k: v for k, v in (config.modalities or {})["image"].items() if k != "class"}
    return Picture.from_settings(settings)
