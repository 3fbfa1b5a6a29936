"""Tensors under their original names, each taken once, and the layers that are made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.convert import sentence
from generalist.convert.report import Report
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.recipe.encoder import EncoderSpec


def fused(tensors: Named, prefix: str, names: tuple[str, str, str]) -> dict[str, Tensor]:
    """Three matrices q, k, v -> one, with their biases; a lenient file may lack one of them, and then all three."""
    found = {end: [f"{prefix}{name}.{end}" for name in names] for end in ("weight", "bias")}
    return {f"mixer.qkv.{end}": torch.cat([tensors[n] for n in own]) for end, own in found.items() if tensors.has(*own)}


def pair(tensors: Named, theirs: str, ours: str) -> dict[str, Tensor]:
    """weight and bias under another name; UserError where the file lacks one and is not lenient."""
    ends = [end for end in ("weight", "bias") if tensors.has(f"{theirs}.{end}")]
    return {f"{ours}.{end}": tensors[f"{theirs}.{end}"] for end in ends}


def layers(tensors: Named, prefix: str, qkv: tuple[str, str, str], names: dict[str, str]) -> dict[str, Tensor]:
    """All blocks `prefix`{i}. by our names."""
    numbers_ = {int(m[1]) for k in tensors if (m := re.match(re.escape(prefix) + r"(\d+)\.", k))}
    if not numbers_:
        raise UserError(f"the weights have no tensor {prefix}0.*; do they belong to the config.json beside them?")
    if numbers_ != set(range(len(numbers_))):
        raise UserError(f"the layers {prefix}* are {sorted(numbers_)}, expected 0, 1, 2 ... without a gap")
    out: dict[str, Tensor] = {}
    for i in sorted(numbers_):
        block = fused(tensors, f"{prefix}{i}.", qkv)
        for theirs, ours in names.items():
            block |= pair(tensors, f"{prefix}{i}.{theirs}", ours)
        out |= {f"encoder.layers.{i}.{name}": value for name, value in block.items()}
    return out


class Named(dict[str, Tensor]):
    """The tensors of a file by name, which remember which of them were read."""

    def __init__(self, tensors: dict[str, Tensor], lenient: bool = False) -> None:
        super().__init__(tensors)
        self.read: set[int] = set()
        self.lenient = lenient
        self.behind = sentence.Sentence(Path())

    def has(self, *names: str) -> bool:
        """Whether the file has these; UserError where not, unless it may lack some."""
        if lacking := [name for name in names if name not in self]:
            if not self.lenient:
                raise UserError(f"the weights lack {lacking[0]}; --lenient keeps fresh ones there")
            return False
        return True

    @staticmethod
    def of(tensors: dict[str, Tensor], anchor: str, lenient: bool = False) -> Named:
        """Names from where `anchor` begins them, beside the full ones: "bert.embeddings.x" -> "embeddings.x"."""
        found = next((k[: k.index(anchor)] for k in tensors if anchor in k), None)
        if found is None:
            raise UserError(f"the weights have no tensor ...{anchor}; do they belong to the config.json beside them?")
        return Named(tensors | {k[len(found) :]: v for k, v in tensors.items() if k.startswith(found)}, lenient)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise UserError(f"the weights lack {name}; do they belong to the config.json beside them?")
        value = super().__getitem__(name)
        if not value.is_floating_point():
            raise UserError(f"{name} is of {value.dtype} numbers, no weights; save them as float32 first")
        self.read.add(id(value))
        return value

    def left(self) -> list[str]:
        """Full names of the tensors that nobody read."""
        names: dict[int, str] = {}
        for name, value in self.items():
            if len(name) > len(names.get(id(value), "")):
                names[id(value)] = name
        return sorted(name for number, name in names.items() if number not in self.read)


Built = tuple[GeneralistModel, GeneralistProcessor, Report]


def spec_of(settings: dict[str, Any]) -> EncoderSpec:
    """What a config.json says that no tensor shows."""
    activation, eps = settings["hidden_act"], settings["layer_norm_eps"]
    return EncoderSpec(heads=settings["num_attention_heads"], activation=activation, eps=eps)
