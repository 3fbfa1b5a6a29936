"""Foreign weight files, read without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.model.folder.stored import whole
from generalist.tokenizers_mod.libraries.weights import refuse_pickles

CONTAINERS = ("module", "model", "state_dict", "model_state_dict", "net")


def load_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The named tensors of a .safetensors file, a folder of them, or a torch checkpoint; and the container's name.

    The container is the entry of the checkpoint that held them ("module" in DeepSpeed's files), "" if none did.
    UserError for a missing, truncated or hostile file: objects other than tensors and plain values are refused.
    """
    if path.is_dir():
        return load_folder(path), ""
    if not path.is_file():
        raise UserError(f"no file {path}; give the checkpoint's path")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; fetch it again")
    if path.suffix == ".safetensors":
        return _safetensors(path), ""
    return _torch(path)


def load_folder(path: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, sharded or not, whole where they are stored smaller. UserError for pickles."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is no index of weight files ({_line(error)}); fetch the model again") from error
        if any(Path(name).name != name for name in names):
            raise UserError(f"{index} names files outside its folder; fetch the model again")
        return whole({k: v for name in names for k, v in _safetensors(path / name).items()})
    if (path / "model.safetensors").is_file():
        return whole(_safetensors(path / "model.safetensors"))
    refuse_pickles(path)
    raise UserError(f"{path} holds no model.safetensors; give a model folder or a checkpoint file")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a complete safetensors file ({_line(error)}); fetch it again") from error


def _torch(path: Path) -> tuple[dict[str, Tensor], str]:
    _check_sums(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower().replace("torch.serialization.add_safe_globals", ""):
            raise UserError(
                f"{path} holds objects other than tensors, which could run code, and is refused; "
                "save its state dict alone as .safetensors where you trust it"
            ) from error
        raise UserError(f"{path} is not a torch checkpoint, or truncated ({_line(error)}); fetch it again") from error
    except Exception as error:  # torch raises many kinds for a broken file
        raise UserError(f"{path} is not a torch checkpoint, or truncated ({_line(error)}); fetch it again") from error
    return _unpack(loaded, path)


def _check_sums(path: Path) -> None:
    """UserError where a member of a zip file, which torch.save writes, differs from its checksum; torch reads past it.

    Files of the old format are no zip files and hold no checksums.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception as error:  # zipfile raises many kinds for a broken file
        raise UserError(f"{path} is damaged ({_line(error)}); fetch it again") from error
    if wrong is not None:
        raise UserError(f"{path} is damaged: {wrong} differs from its checksum; fetch it again")


def _unpack(loaded: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    container = ""
    beside: dict[str, Tensor] = {}
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        tensors = {str(k): v.detach() for k, v in loaded.items() if isinstance(v, Tensor)}
        inner = next((name for name in CONTAINERS if isinstance(loaded.get(name), Mapping)), None)
        if tensors and (inner is None or len(tensors) > 8):
            return beside | tensors, container
        if inner is None:
            break
        beside |= tensors  # tensors beside the container stay to be named in the report
        loaded, container = loaded[inner], inner
    raise UserError(f"{path} holds no named tensors; give a checkpoint with a state dict")


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120]
