"""The parts that plain ViT encoders share: one configuration and one table of names.

tokens  = patch W + b + Pos[1 + i]        summary = class + Pos[0], one constant row
encoder = pre-norm blocks of one fused q, k, v matrix
feature = norm of the summary, projected
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from generalist.convert.report import Report, fill
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.recipe.encoder import EncoderSpec
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.video import Picture

FRESH = ("tokenizers.text.", "log_scales.")  # what a picture encoder does not have


def build(
    kind: str,
    tensors: dict[str, Tensor],
    spec: EncoderSpec,
    *,
    picture: Picture | None,
    hidden_summary: bool = False,
    fresh: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    text: Text | None = None,
    families: tuple[str, ...] = (),
    lenient: bool = False,
) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """A model of these tensors (by this framework's names), whose sizes and switches are read off them.

    spec: what no tensor shows: heads, activation, eps, norm, position, channel mixers, readout.
    fresh: beginnings of names that the file cannot have and that stay as initialised. hidden_summary: no token sees
    the summary, which the file's model does not have.
    families: parts that a model of this kind always has, whatever the file lacks. lenient: keep fresh weights where it
    lacks some.
    """
    if picture is None and text is None:
        raise ValueError("a model needs the modality of its file: picture or text")
    text = text or Text(max_length=77, positions=77)
    found = _told(kind, tensors, spec, families)
    modalities: dict[str, Modality] = {"summary": Summary(hidden=hidden_summary), "text": text}
    modalities |= {} if picture is None else {"image": picture}
    config = GeneralistConfig(**found.described(), modalities=modality_settings(modalities))
    model = GeneralistModel(config).eval()
    report = Report(kind, notes=list(notes))
    state = model.state_dict()
    kept = {name: value for name, value in state.items() if name.startswith(FRESH + fresh) and name not in tensors}
    if kept:
        parts = sorted({".".join(name.split(".")[:2]) for name in kept})
        report.notes.append(f"as initialised, for the file has none: {', '.join(parts)}")
    fill(model, {**kept, **tensors}, report, lenient)
    report.loaded -= len(kept)
    processor = GeneralistProcessor(tokenizer=text.hf_tokenizer(), modalities=config.modalities)
    return model, processor, report


def _told(kind: str, tensors: dict[str, Tensor], spec: EncoderSpec, families: tuple[str, ...]) -> EncoderSpec:
    """The description with what the tensors show of sizes and parts."""
    projection = tensors.get("head.projection.weight")
    layers, width, hidden = _sizes(kind, tensors)

    def has(part: str) -> bool:
        """A part is there if any of its tensors is, in any layer."""
        names = (re.sub(r"layers\.\d+", "layers", name) for name in tensors)
        return part.rstrip(".") in families or any(name.startswith(part) for name in names)

    return replace(
        spec,
        width=width,
        layers=layers,
        hidden=hidden,
        layer_scale=1e-3 if has("encoder.layers.gamma") else 0.0,
        embedding_norm=has("embedding_norm."),
        final_norm=has("encoder.norm."),
        output_head=projection is not None,
        output_size=0 if projection is None else len(projection),
        output_bias="head.projection.bias" in tensors,
        output_norm=has("head.norm."),
        inner_norm=has("encoder.layers.mixer.norm."),
        initial_scale=1 / 0.07,
    )


def _sizes(kind: str, tensors: dict[str, Tensor]) -> tuple[int, int, int]:
    """Layers, width and hidden width of the blocks. UserError where no layer shows one of them."""
    numbers = {int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers.")}
    down = next((v for name, v in sorted(tensors.items()) if name.endswith("mlp.down.weight")), None)
    if not numbers or down is None or down.ndim != 2:
        raise UserError(f"{kind}: no block has a matrix of its second linear map; is the file complete?")
    return 1 + max(numbers), down.shape[0], down.shape[1]


def stem(patch: Tensor, bias: Tensor | None, positions: Tensor, summary: Tensor | None) -> dict[str, Tensor]:
    """The picture tokenizer and the summary row of a ViT's stem.

    patch: Float[D C p p]; positions: Float[1 + n, D], or [n, D] without a class token; summary: Float[D] or None.
    """
    if patch.ndim != 4 or positions.ndim != 2 or not positions.numel():
        shapes = f"{tuple(patch.shape)} and {tuple(positions.shape)}"
        raise UserError(f"the patch kernel and positions have shapes {shapes}; expected [D, C, p, p] and [n, D]")
    width = len(patch)
    out = {
        "tokenizers.image.projection.weight": patch.flatten(1),
        "tokenizers.image.temporal.weight": torch.zeros(1, width),
        "tokenizers.image.spatial": positions if summary is None else positions[1:],
    }
    if bias is not None:
        out["tokenizers.image.projection.bias"] = bias
    if summary is not None:
        out["tokenizers.summary.token.weight"] = (summary + positions[0]).reshape(1, width)
    return out


def picture(patch: Tensor, bias: bool, cells: int, mean: Any, std: Any) -> Picture:
    """The picture modality of a square ViT. UserError for a grid that is not square."""
    side = round(cells**0.5)
    if side * side != cells or patch.shape[2] != patch.shape[3]:
        raise UserError(f"the model has {cells} patches of {tuple(patch.shape[2:])} pixels; only square grids convert")
    return Picture(
        size=side * patch.shape[2],
        patch=patch.shape[2],
        channels=patch.shape[1],
        frames=1,
        mean=list(mean),
        std=list(std),
        table="learned",
        bias=bias,
    )
