"""Where a network's weights come from, offline unless asked: a package of the zoo, a folder, a file, the hub's cache.

zoo:NAME      weights inside an installed package (`generalist.tokenizers_mod.libraries.zoo`)
DIR or FILE   safetensors, or one file of timm's or an author's (.pth, .pt: tensors alone, nothing is unpickled)
hub:NAME      the Hugging Face cache; a name that is not there is fetched, for it was asked for by name
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, one_line
from generalist.tokenizers_mod.libraries import zoo

HUB, ZOO = "hub:", "zoo:"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
BY_LIBRARY = "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)"
BY_TENSOR = "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
HOST, PATIENCE = "huggingface.co", 3.0  # seconds


def resolve(source: str, what: str) -> Path:
    """The folder or file behind a source. UserError in one line where there is none."""
    if source.startswith(ZOO):
        return zoo.entry(source).path()
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB), what)
    path = Path(source)
    if not path.exists():
        raise UserError(f"{what}: no weights at {source!r}; give a folder, a file, zoo:NAME or hub:NAME")
    return path


def _from_hub(name: str, what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    off = [key for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(key, "") not in ("", "0")]
    if off or not _reachable():
        why = f"{off[0]} is set" if off else f"{HOST} cannot be reached"
        raise UserError(f"{what}: {HUB}{name} is not in the Hugging Face cache and {why}; give a folder or zoo:NAME")
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub's client fails in many ways
        raise UserError(f"{what}: {HUB}{name} cannot be fetched ({one_line(error)})") from error


def _reachable() -> bool:
    try:
        socket.create_connection((HOST, 443), PATIENCE).close()
    except OSError:
        return False
    return True


def read(path: Path, what: str) -> dict[str, Tensor]:
    """All tensors of a file, or of a folder's safetensors. UserError for pickles in folders and unreadable files."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            refuse_pickles(path, f"{what}: ")
            raise UserError(f"{what}: {path} holds no *.safetensors; give a folder of weights")
        return {name: value for file in files for name, value in read(file, what).items()}
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format fails in its own way
        raise UserError(f"{what}: {path} holds no readable weights ({one_line(error)})") from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model", "model_state"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{what}: {path} is no table of tensors")
    return {name.removeprefix("module."): value for name, value in found.items()}


def refuse_pickles(folder: Path, what: str = "", way: str = BY_LIBRARY) -> None:
    """UserError where a folder's weights are pickles alone; it says which file, and how safetensors are made of them.

    what: begins the line. way: the Python that makes them, where the folder is not transformers'.
    """
    if not folder.is_dir() or list(folder.glob("*.safetensors")):
        return
    if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES):
        raise UserError(
            f"{what}{folder} holds its weights as {pickles[0]}, a pickle, which can run code and is not read out of a "
            f"folder; save them as safetensors where it is trusted: {way}"
        )


def check_folder(folder: Path, what: str) -> None:
    """UserError in one line where a folder's weights are pickles, or where it has none."""
    if folder.is_dir() and not list(folder.glob("*.safetensors")):
        read(folder, what)


def check_words(tokenizer: Any, what: str) -> None:
    """UserError for a tokenizer of transformers without a word: it makes one where a folder has no files of any."""
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(f"{what} has no tokenizer; put the encoder's own beside its weights (tokenizer.json)")


def digest(state: dict[str, Tensor]) -> str:
    """32 hex digits of names and bytes in the order of the names: which weights a network has."""
    made = hashlib.blake2b(digest_size=16)
    for name, value in sorted(state.items()):
        made.update(name.encode())
        made.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json (or open_clip_config.json) of a folder; {} where it has none."""
    for name in ("config.json", "open_clip_config.json"):
        if (folder / name).is_file():
            try:
                return json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{folder / name} is not JSON ({one_line(error)})") from error
    return {}
