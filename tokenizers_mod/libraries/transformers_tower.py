"""transformers' picture networks: its backbone API for maps where there is one, else AutoModel's last hidden states."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING, AutoBackbone, AutoModel

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.backbones import stages
from generalist.tokenizers_mod.libraries.tower import Tower, as_map, fit

stages.register()  # published networks of our own, {"model_type": "stages", "kind": ...}


def describe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    if name not in CONFIG_MAPPING:
        raise UserError(f"backbone: transformers has no network {name!r}; {nearest(name, CONFIG_MAPPING)}")
    known = CONFIG_MAPPING[name]().to_dict()
    if "vision_config" in known:  # of a model of pictures and texts, the part for pictures
        return describe(known["vision_config"]["model_type"], dict(settings.get("vision_config", settings)))
    return {"library": "transformers", "name": name, "settings": dict(settings)}


def build(description: dict[str, Any], size: tuple[int, int], kind: str, any_size: bool) -> Tower:
    name = description["name"]
    config = CONFIG_MAPPING[name](**description["settings"])
    if hasattr(config, "image_size") and "image_size" not in description["settings"]:
        config.image_size = size[0] if size[0] == size[1] else size
    maps = kind != "embedding" and type(config) in MODEL_FOR_BACKBONE_MAPPING
    if maps and kind == "all" and "out_indices" not in description["settings"] and hasattr(config, "stage_names"):
        count = len(config.stage_names)
        config.out_indices = list(range(1, count)) if count <= 6 else [count - 1]
    if not maps and type(config) not in MODEL_MAPPING:
        raise UserError(f"backbone: transformers has no network of its own for {name!r} pictures")
    net = AutoBackbone.from_config(config) if maps else AutoModel.from_config(config)
    return TransformersTower(net, kind, maps)


class TransformersTower(Tower):
    net: Any

    def __init__(self, net: nn.Module, kind: str, maps: bool) -> None:
        super().__init__(net, kind)
        self.by_maps = maps

    def maps(self, pixels: Tensor) -> list[Tensor]:
        more = {} if self.by_maps else _free_size(self.net)
        out = self.net(pixels, **more)
        size = pixels.shape[2], pixels.shape[3]
        if self.by_maps:
            return [m if m.ndim == 4 else as_map(m, size) for m in out.feature_maps]
        last = out.last_hidden_state
        if last.ndim == 4:
            return [last]
        return [as_map(last[:, _prefix(self.net.config, last.shape[1], size) :], size)]

    def embedding(self, pixels: Tensor) -> Tensor:
        out = self.net(pixels, **_free_size(self.net))
        pooled = getattr(out, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        last = out.last_hidden_state
        return last.mean((2, 3)) if last.ndim == 4 else last[:, 0]

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        base = self.net.base_model_prefix
        own = self.net.state_dict()
        for start in (f"{base}.", "vision_model.", "backbone."):
            if not set(own) & set(tensors) and any(k.startswith(start) for k in tensors):
                tensors = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        heads = ("classifier.", "pooler.", "head.", "decoder.", "layernorm.")
        fit(self.net, tensors, where, lambda name: name.startswith(heads) and not (name in own and name in tensors))


def _free_size(net: Any) -> dict[str, bool]:
    """Nothing, or the word that lets a network with position tables take another size."""
    import inspect

    takes = "interpolate_pos_encoding" in inspect.signature(net.forward).parameters
    return {"interpolate_pos_encoding": True} if takes else {}


def _prefix(config: Any, rows: int, size: tuple[int, int]) -> int:
    """Rows in front of the cells: class and register tokens; what does not fill whole rows of patches."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int):
        return max(0, rows - (size[0] // patch) * (size[1] // patch))
    return 0


def pixels(description: dict[str, Any]) -> dict[str, Any]:
    """Without a folder there is no processor of its own: ImageNet's mean and deviation at the configuration's size."""
    config = CONFIG_MAPPING[description["name"]](**description["settings"])
    side = getattr(config, "image_size", None) or 224
    size = list(side) if isinstance(side, list | tuple) else [side, side]
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return {"library": "timm", "size": size, "interpolation": "bicubic", "mean": mean, "std": std, "crop_pct": 1.0}
