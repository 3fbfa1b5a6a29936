"""A tower's network, built by its own library from JSON settings: named tensors of a batch -> Float[B E].

    open_clip      {"embed_dim", "vision_cfg" or "text_cfg", "quick_gelu", "hf_config": of a Hugging Face text tower}
    transformers   the configuration of the whole model; the tower is that model without the other's parts

Parameters keep the library's names, so that its weight files fit. Every buffer is saved with the model: a loader that
makes networks without values would leave those that are not saved empty.
"""

from __future__ import annotations

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest

PACKAGES = {"open_clip": "open_clip_torch", "transformers": "transformers"}
SIDES = ("image", "text", "audio", "video")
# beginnings of the names of a transformers model's parts, by the side that they belong to
OWN = {
    "image": ("vision", "visual"),
    "text": ("text",),
    "audio": ("audio",),
    "video": ("vision", "visual", "mit"),
}
GETTERS = {side: f"get_{side}_features" for side in SIDES}
# what a transformers model calls a tensor that a client of this framework knows by another name
RENAMED = {"pixel_values_videos": "pixel_values"}


def build_network(library: str, side: str, config: dict[str, Any]) -> nn.Module:
    """The network of one side ("image", "text", "audio", "video"). UserError: no such library, it is not installed."""
    if library not in PACKAGES:
        raise UserError(f"a tower of the library {library!r}; {nearest(library, PACKAGES)}")
    if find_spec(library) is None:
        raise UserError(f"this tower needs the package {library}; install it: pip install {PACKAGES[library]}")
    made = _OpenClip(side, config) if library == "open_clip" else _Transformers(side, config)
    for module in made.modules():
        module._non_persistent_buffers_set.clear()
    return made


class _OpenClip(nn.Module):
    """open_clip's image or text tower. CoCa's towers give tokens besides, which are left out."""

    def __init__(self, side: str, config: dict[str, Any]) -> None:
        super().__init__()
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg, _build_text_tower, _build_vision_tower

        size, gelu = config["embed_dim"], config.get("quick_gelu", False)
        if side == "image":
            settings = CLIPVisionCfg(**config["vision_cfg"] | {"timm_model_pretrained": False})
            self.tower = _build_vision_tower(size, settings, gelu)
        elif "hf_config" in config:
            with tempfile.TemporaryDirectory() as folder:  # the library reads a configuration from a folder alone
                (Path(folder) / "config.json").write_text(json.dumps(config["hf_config"]), encoding="utf-8")
                own = {"hf_model_name": folder, "hf_model_pretrained": False}
                self.tower = _build_text_tower(size, CLIPTextCfg(**config["text_cfg"] | own), gelu)
        else:
            self.tower = _build_text_tower(size, CLIPTextCfg(**config["text_cfg"]), gelu)

    def forward(self, pixel_values: Tensor | None = None, input_ids: Tensor | None = None) -> Tensor:
        found = self.tower(input_ids if pixel_values is None else pixel_values)
        return found[0] if isinstance(found, tuple) else found


class _Transformers(nn.Module):
    """One side of a transformers model.

    The model itself is kept beside the tree of modules, for its `get_..._features`: what belongs to the other side is
    taken out of it, and its parts are this module's.
    """

    def __init__(self, side: str, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import CONFIG_MAPPING, AutoModel

        values = dict(config)
        whole = AutoModel.from_config(CONFIG_MAPPING[values.pop("model_type")](**values))
        for name, _ in list(whole.named_parameters(recurse=False)):
            delattr(whole, name)
        for name, part in list(whole.named_children()):
            if name.startswith(OWN[side]):
                self.add_module(name, part)
            else:
                delattr(whole, name)
        object.__setattr__(self, "whole", whole)
        self.side = side

    def forward(self, **tensors: Tensor) -> Tensor:
        return library_features(self.__dict__["whole"], self.side, tensors)


def library_features(model: Any, side: str, tensors: dict[str, Tensor]) -> Tensor:
    """What a transformers model makes of one side's tensors: Float[B E]."""
    found = getattr(model, GETTERS[side])(**{RENAMED.get(key, key): value for key, value in tensors.items()})
    return found if isinstance(found, Tensor) else found.pooler_output
