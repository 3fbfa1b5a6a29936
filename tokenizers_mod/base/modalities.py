"""The one explicit table of modalities: a name and where its class is; nothing registers itself.

A modality of your own needs no line here: give its import path as the setting "class",
`modalities={"depth": {"class": "my_package.depth:Depth", "size": 64}}`, and import it before
(`generalist.data.base.trust`).
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
}


def modality_class(name: str, path: str | None = None) -> type[Modality]:
    """The class behind a name of the table or behind an import path "package.module:Class"."""
    path = path or MODALITIES.get(name)
    if path is None:
        raise UserError(f"unknown modality {name!r}; {nearest(name, MODALITIES)}")
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
        modality = modality_class(name, path).from_settings(values)
        modality.name = name  # type: ignore[misc]  # one class may serve several modalities of a model
        out[name] = modality
    return out


def modality_settings(modalities: dict[str, Modality]) -> dict[str, Any]:
    """{name: modality} -> {name: JSON settings}, the inverse of `build_modalities`."""
    out = {}
    for name, modality in modalities.items():
        path = f"{type(modality).__module__}:{type(modality).__qualname__}"
        out[name] = modality.settings() | ({} if MODALITIES.get(name) == path else {"class": path})
    return out
