"""The one explicit table of modalities: a name and where its class is; nothing registers itself.

A model calls its modalities as it likes; one that is not called by a name of the table says which it is by the setting
"class": `{"image": {"class": "backbone", "backbone": "convnext_tiny"}}`, and `modalities.image.class=backbone` on the
command line. A modality of your own needs no line here: its class is an import path, `{"class":
"my_package.depth:Depth", "size": 64}`, imported before (`generalist.data.base.trust`).
"""

from __future__ import annotations

from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.trust import find_class
from generalist.tokenizers_mod.base.base import Modality

MODALITIES: dict[str, str] = {
    "summary": "generalist.tokenizers_mod.text.summary:Summary",
    "text": "generalist.tokenizers_mod.text.text:Text",
    "image": "generalist.tokenizers_mod.vision.image:Image",
    "xray": "generalist.tokenizers_mod.vision.xray:XRay",
    "thermal": "generalist.tokenizers_mod.vision.thermal:Thermal",
    "depth": "generalist.tokenizers_mod.vision.depth:Depth",
    "spectral": "generalist.tokenizers_mod.vision.spectral:Spectral",
    "video": "generalist.tokenizers_mod.vision.video:Video",
    "region": "generalist.tokenizers_mod.regions.region:Region",
    "audio": "generalist.tokenizers_mod.audio.audio:Audio",
    "imu": "generalist.tokenizers_mod.numbers.imu:Imu",
    "graph": "generalist.tokenizers_mod.geometry.graph:Graph",
    "points": "generalist.tokenizers_mod.geometry.points:Points",
    "series": "generalist.tokenizers_mod.numbers.series:Series",
    "variates": "generalist.tokenizers_mod.numbers.variates:Variates",
    "slot": "generalist.tokenizers_mod.numbers.slot:Slot",
    "table": "generalist.tokenizers_mod.tables.table:Table",
    "number": "generalist.tokenizers_mod.numbers.number:Number",
    # encoders that bring their weights
    "stages": "generalist.tokenizers_mod.pretrained.stages.stages:Stages",
    "backbone": "generalist.tokenizers_mod.pretrained.backbone:Backbone",
    "heard": "generalist.tokenizers_mod.pretrained.heard:Heard",
    "pretrained_text": "generalist.tokenizers_mod.pretrained.text:PretrainedText",
    "pretrained_audio": "generalist.tokenizers_mod.pretrained.sequences:PretrainedAudio",
    "pretrained_video": "generalist.tokenizers_mod.pretrained.sequences:PretrainedVideo",
    "pretrained_series": "generalist.tokenizers_mod.pretrained.sequences:PretrainedSeries",
    "sentence": "generalist.tokenizers_mod.pretrained.sentence:Sentence",
}


def modality_class(name: str, path: str | None = None) -> type[Modality]:
    """The class behind a name of the table or, where `path` is given, behind that: a name of the table as well, or an
    import path "package.module:Class"."""
    if path is None and name not in MODALITIES:
        raise UserError(f"unknown modality {name!r}; {nearest(name, MODALITIES)}")
    if path is not None and ":" not in str(path) and path not in MODALITIES:
        raise UserError(
            f"modality {name!r}: no class {path!r}; {nearest(str(path), MODALITIES)} (or package.module:Class)"
        )
    asked = name if path is None else path
    path = MODALITIES.get(asked, asked)
    found = find_class(path, f"modality {name!r}")
    if not (isinstance(found, type) and issubclass(found, Modality)):
        raise UserError(f"modality {name!r}: {path!r} is not a Modality class")
    return found


def build_modalities(settings: dict[str, Any] | None) -> dict[str, Modality]:
    """{name: settings} -> {name: modality}. UserError names the nearest valid modality or setting."""
    out = {}
    for name, values in (settings or {}).items():
        values = dict(values)
        path = values.pop("class", None)
        out[name] = modality_class(name, path).from_settings(values).called(name)
    return out


def modality_settings(modalities: dict[str, Modality]) -> dict[str, Any]:
    """{name: modality} -> {name: JSON settings}, the inverse of `build_modalities`."""
    out = {}
    for name, modality in modalities.items():
        path = f"{type(modality).__module__}:{type(modality).__qualname__}"
        out[name] = modality.settings() | ({} if MODALITIES.get(name) == path else {"class": path})
    return out
