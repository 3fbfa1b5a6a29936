"""What pretrained models are on this machine: the zoo's packages, the Hugging Face cache, folders; none is fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.libraries.weights import HUB, ZOO, config_of
from generalist.tokenizers_mod.libraries.zoo import ZOO as ENTRIES

WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
DEPTH = 3  # folders below a given one that are looked into
# words of a configuration's model_type or architecture that tell what goes in
KINDS = {
    "image, text": r"clip(?!_vision|_text)|siglip(?!_vision|_text)|blip|flava",
    "audio": r"wav2vec|hubert|wavlm|whisper|audio|clap|sew|unispeech",
    "video": r"videomae|timesformer|vivit|vjepa",
    "series": r"patchtst|timesfm|informer|autoformer|patchtsmixer",
    "image": r"vit|vision|dino|swin|convnext|resnet|beit|deit|hiera|efficientnet|poolformer|regnet|mobilenet",
    "text": r"bert|t5|gpt|llama|electra|mpnet|mistral|qwen|opt|bloom|text",
}


def found(folders: Iterable[Path] = ()) -> list[dict[str, Any]]:
    """Of every model its name as recipes take it, package, modality, bytes (None: not installed), licence, about."""
    return [*_zoo(), *_cached(), *(model for folder in folders for model in _below(folder, DEPTH))]


def _zoo() -> list[dict[str, Any]]:
    return [
        {
            "name": ZOO + entry.name,
            "package": f"{entry.package} {entry.version}".strip(),
            "installed": entry.installed,
            "modality": entry.modality,
            "bytes": entry.size() if entry.installed else None,
            "licence": entry.licence,
            "about": entry.about,
        }
        for entry in ENTRIES.values()
    ]


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(os.environ.get("HF_HUB_CACHE", HF_HUB_CACHE))


def _cached() -> list[dict[str, Any]]:
    models = []
    for folder in sorted(hub_cache().glob("models--*")):
        snapshots = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        if snapshots and (model := model_of(snapshots[-1])) is not None:
            models.append(model | {"name": HUB + "/".join(folder.name.split("--")[1:])})
    return models


def _below(folder: Path, depth: int) -> list[dict[str, Any]]:
    own = model_of(folder)
    if own is not None:
        return [own]
    if not depth:
        return []
    return [m for sub in sorted(p for p in folder.iterdir() if p.is_dir()) for m in _below(sub, depth - 1)]


def model_of(folder: Path) -> dict[str, Any] | None:
    """A folder with a configuration and weights; None of any other. One that cannot be read is listed and says why."""
    files = [path for path in folder.iterdir() if path.suffix in WEIGHTS and path.is_file()]
    if not files:
        return None
    try:
        config, why = config_of(folder), ""
    except UserError as error:
        config, why = {}, str(error)
    if not config and not why:
        return None
    kind = str(config.get("model_type") or config.get("architecture") or ("clip" if "model_cfg" in config else ""))
    own = config.get("modalities")
    modality = ", ".join(name for name in own if name != "summary") if isinstance(own, dict) else _modality(kind)
    return {
        "name": str(folder),
        "package": "",
        "installed": True,
        "modality": modality,
        "bytes": sum(path.stat().st_size for path in files),
        "licence": _licence(folder),
        "about": why or kind + ("" if any(f.suffix == ".safetensors" for f in files) else " (pickles: not loaded)"),
    }


def _modality(kind: str) -> str:
    return next((name for name, words in KINDS.items() if re.search(words, kind.lower())), "?")


def _licence(folder: Path) -> str:
    """As the model card says."""
    card = folder / "README.md"
    if not card.is_file():
        return "not stated"
    said = re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace")[:4000], re.MULTILINE)
    return said[1] if said else "not stated"
