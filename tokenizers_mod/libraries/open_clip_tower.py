"""open_clip's visual towers, by architecture."""

from __future__ import annotations

from typing import Any

import open_clip
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.libraries.tower import Tower, fit


def describe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    found = open_clip.get_model_config(name)
    if found is None:
        raise UserError(f"backbone: open_clip has no {name!r}; {nearest(name, open_clip.list_models())}")
    vision = {**found["vision_cfg"], **settings, "embed_dim": found["embed_dim"]}
    vision["quick_gelu"] = found.get("quick_gelu", False)
    vision["preprocess"] = found.get("preprocess_cfg") or {}
    return {"library": "open_clip", "name": name, "settings": vision}


def build(description: dict[str, Any], size: tuple[int, int], kind: str, any_size: bool) -> Tower:
    settings = dict(description["settings"])
    width, quick = settings.pop("embed_dim"), settings.pop("quick_gelu", False)
    settings.pop("preprocess", None)
    settings["image_size"] = size[0] if size[0] == size[1] else list(size)
    if settings.get("timm_model_name"):
        settings["timm_model_pretrained"] = False
    return OpenClipTower(_build_vision_tower(width, CLIPVisionCfg(**settings), quick), kind)


def pixels(description: dict[str, Any]) -> dict[str, Any]:
    """How open_clip prepares pictures for it: its `PreprocessCfg`."""
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg

    settings = description["settings"]
    cfg = asdict(PreprocessCfg(**settings.get("preprocess", {})))
    side = settings.get("image_size", 224)
    found = {k: list(v) if isinstance(v, tuple) else v for k, v in cfg.items() if k != "mode"}
    return {"library": "open_clip", **found, "size": list(side) if isinstance(side, list | tuple) else [side, side]}


class OpenClipTower(Tower):
    net: Any

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__(net, kind)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        few = None if self.kind == "all" else 1
        made = self.net.forward_intermediates(
            pixels, indices=few, normalize_intermediates=self.kind != "all", intermediates_only=True
        )
        return list(made["image_intermediates"])

    def embedding(self, pixels: Tensor) -> Tensor:
        found = self.net(pixels)
        return found[0] if isinstance(found, tuple) else found  # CoCa's tower gives its tokens as well

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Of the whole model or of the tower alone."""
        whole = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
        fit(self.net, whole or tensors, where)
