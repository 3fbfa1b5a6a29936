"""What a network's name means: timm's names, `open_clip:ARCH`, `zoo:NAME`, `hub:NAME`, folders, configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.libraries import weights, zoo
from generalist.tokenizers_mod.libraries.pixels import processor_settings
from generalist.tokenizers_mod.libraries.tower import library_of

OPEN_CLIP = "open_clip:"


def find(backbone: str | dict[str, Any], source: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(description of the network, of its pixels or {}, where its weights come from). UserError for an unknown name.

    backbone: a name, or {"model_type": ..., settings} of transformers, {"model_type": "timm_backbone", "backbone": a
    name of timm, settings} or {"model_type": "open_clip", "name": ..., settings}. source: weights asked for, "" = the
    ones that the name stands for, or none.
    """
    if isinstance(backbone, dict):
        description = _configured(backbone)
        return description, _pixels(description, source), source
    if not backbone:
        raise UserError("backbone: give backbone=, such as convnext_tiny, open_clip:ViT-B-32, zoo:NAME or a folder")
    if backbone.startswith(weights.ZOO):
        found = zoo.entry(backbone)
        if not found.backbone:
            raise UserError(f"backbone: {backbone} is no network of pictures but of {found.modality}")
        description = library_of({"library": "timm"}).describe(found.backbone, {})
        return description, found.pixels or _pixels(description, ""), source or backbone
    if backbone.startswith(OPEN_CLIP):
        description = library_of({"library": "open_clip"}).describe(backbone.removeprefix(OPEN_CLIP), {})
        return description, _pixels(description, ""), source
    if backbone.startswith(weights.HUB) or (Path(backbone) / "config.json").is_file():
        folder = weights.resolve(backbone, "backbone")
        return _of_folder(folder, source or backbone)
    if Path(backbone).is_dir():
        raise UserError(f"backbone: {backbone} has no config.json; give a folder of transformers, timm or open_clip")
    import timm

    if not timm.is_model(backbone):
        raise UserError(f"backbone: no network {backbone!r}; {nearest(backbone, timm.list_models())}")
    description = library_of({"library": "timm"}).describe(backbone, {})
    return description, _pixels(description, source), source


def _configured(backbone: dict[str, Any]) -> dict[str, Any]:
    settings = dict(backbone)
    kind = settings.pop("model_type", "")
    if kind == "timm_backbone":
        return library_of({"library": "timm"}).describe(settings.pop("backbone", ""), settings)
    if kind == "open_clip":
        return library_of({"library": "open_clip"}).describe(settings.pop("name", ""), settings)
    return library_of({"library": "transformers"}).describe(kind, settings)


def _of_folder(folder: Path, source: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    config = weights.config_of(folder)
    if "architecture" in config:  # timm's own folders
        description = library_of({"library": "timm"}).describe(config["architecture"], config.get("model_args") or {})
        own = config.get("pretrained_cfg", {})
        keys = ("interpolation", "mean", "std", "crop_pct", "crop_mode")
        pixels = _pixels(description, "") | {k: own[k] for k in keys if k in own}
        if "input_size" in own:
            pixels["size"] = list(own["input_size"][1:])
        return description, pixels, source
    if "model_type" not in config:
        raise UserError(f"backbone: {folder}/config.json names no model_type; give a folder of transformers or timm")
    kind = config.pop("model_type")
    description = library_of({"library": "transformers"}).describe(kind, config)
    return description, processor_settings(str(folder)) or _pixels(description, ""), source


def _pixels(description: dict[str, Any], source: str) -> dict[str, Any]:
    """How pictures are prepared: as the folder of weights says, else as the library's own settings of the network."""
    if source and not source.startswith(weights.ZOO):
        folder = weights.resolve(source, "backbone")
        if folder.is_dir() and (folder / "preprocessor_config.json").is_file():
            return processor_settings(str(folder)) or {}
    library = library_of(description)
    return library.pixels(description)
