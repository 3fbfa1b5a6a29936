"""The one explicit table of modalities: a name and where its class is; nothing registers itself.

A modality of your own needs no line here: give its import path as the setting "class",
`modalities={"depth": {"class": "my_package.depth:Depth", "size": 64}}`, and import it before (`data.trust`).
"""

from __future__ import annotations

from typing import Any

from data.errors import UserError, nearest
from data.trust import find_class
from tokenizers_mod.base import Modality

MODALITIES: dict[str, str] = {
    "summary": "tokenizers_mod.summary:Summary",
    "text": "tokenizers_mod.text:Text",
    "image": "tokenizers_mod.image:Image",
    "xray": "tokenizers_mod.xray:XRay",
    "thermal": "tokenizers_mod.thermal:Thermal",
    "depth": "tokenizers_mod.depth:Depth",
    "spectral": "tokenizers_mod.spectral:Spectral",
    "video": "tokenizers_mod.video:Video",
    "region": "tokenizers_mod.region:Region",
    "audio": "tokenizers_mod.audio:Audio",
    "imu": "tokenizers_mod.imu:Imu",
    "graph": "tokenizers_mod.graph:Graph",
    "points": "tokenizers_mod.points:Points",
    "series": "tokenizers_mod.series:Series",
    "slot": "tokenizers_mod.slot:Slot",
    "table": "tokenizers_mod.table:Table",
    "number": "tokenizers_mod.number:Number",
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
