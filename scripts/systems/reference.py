"""A file of reference tensors of a published system: its configuration, weights, inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from generalist.data.base.errors import UserError

PARTS = ("state_dict", "inputs", "outputs")  # a file NAME.safetensors of all, or NAME.PART.safetensors of each
# settings that change no number in evaluation, or that weights and inputs show
SHOWN = {"num_classes", "in_chans", "img_size", "image", "drop_rate", "attn_drop_rate", "drop_path_rate", "dropout"}
SHOWN |= {"filter_dropout", "use_checkpoint", "use_checkpoints", "num_stages", "lr", "lr_pos_emb", "wd", "normalized"}
SHOWN |= {"fused_fft_conv", "lr_pos", "modulation_lr", "sr_ratios", "file", "note", "grid", "mode", "highpass_layout"}
SHOWN |= {"depth", "mlp_ratio", "qkv_bias"}
SHOWN |= {"cls", "dim", "H", "W", "distill_token", "num_tokens", "projection", "token_blocks", "num_blocks", "heads"}


class Config(dict[str, Any]):
    """What the authors' code was built with, and which of it was looked at."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def only(self, file: str, **published: Any) -> None:
        """UserError where a setting is none of those that are built here."""
        for name, value in published.items():
            if self.get(name, value) != value:
                raise UserError(f"{file}: {name}={self[name]!r} is not built; the published models have {value!r}")

    @property
    def unknown(self) -> list[str]:
        """The settings that nobody looked at."""
        return sorted(
            name
            for name in self.keys() - self.read - SHOWN
            if not name.startswith(("grid_", "layernorm_eps"))  # of gates, and 1e-6 everywhere
        )


@dataclass
class Reference:
    """config: what the authors' code was built with; weights: by their names; tensors: all others, inputs and outputs.

    asked: the names of `tensors` that were read, which are no outputs.
    """

    name: str
    config: Config
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.config = Config(self.config)

    def __getitem__(self, name: str) -> Tensor:
        """An input."""
        self.asked.add(name)
        return self.tensors[name]

    def has(self, *weights: str) -> bool:
        """Whether it holds a weight of each of these names."""
        return all(name in self.weights for name in weights)

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The weights behind a prefix, without it."""
        return {name.removeprefix(prefix): t for name, t in self.weights.items() if name.startswith(prefix)}

    @staticmethod
    def read(paths: list[Path]) -> Reference:
        """One system of one file, or of the three of its parts."""
        config: dict[str, Any] = {}
        weights: dict[str, Tensor] = {}
        tensors: dict[str, Tensor] = {}
        for path in paths:
            part = path.stem.rpartition(".")[2]
            with safe_open(path, "pt") as file:
                config |= json.loads((file.metadata() or {}).get("config", "{}"))
                for key in file.keys():  # noqa: SIM118  # a safetensors file is no mapping
                    is_weight = part == "state_dict" or key.startswith("sd.")
                    (weights if is_weight else tensors)[key.removeprefix("sd.")] = file.get_tensor(key)
        return Reference(stem(paths[0]), Config(config), weights, tensors)


def stem(path: Path) -> str:
    """A system's name within its folder."""
    name, _, part = path.stem.rpartition(".")
    return name if part in PARTS else path.stem


def references(folder: Path) -> list[Reference]:
    """All of a folder. UserError where it holds none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.setdefault(stem(path), []).append(path)
    if not found:
        raise UserError(f"{folder} holds no reference tensors; give a folder of .safetensors files")
    return [Reference.read(paths) for paths in found.values()]


def loaded(module: nn.Module, weights: dict[str, Tensor], named: Callable[[str], str | None] = lambda key: key) -> Any:
    """The module with the authors' weights, for evaluation; every tensor of both must have found its like.

    named: the module's name of an official one, None for what it does not keep.
    """
    own = {name: t for key, t in weights.items() if (name := named(key)) is not None}
    module.load_state_dict({name: t.reshape(module.state_dict()[name].shape) for name, t in own.items()})
    return module.eval()


@torch.no_grad()
def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours.double() - theirs.double()).abs().max()) if ours.numel() else 0.0
