"""A model folder read back: the model with its processor, and one line where the folder is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.model.folder.read import read_plain
from generalist.model.model import PackedModel
from generalist.model.processor import Processor

if TYPE_CHECKING:
    from generalist.hf.model import GeneralistModel
    from generalist.hf.processor import GeneralistProcessor


def read_model(folder: Path) -> tuple[GeneralistModel, GeneralistProcessor]:
    """The model in evaluation mode and its processor. UserError when a file is missing, empty or cut off."""
    from generalist.hf.model import GeneralistModel
    from generalist.hf.processor import GeneralistProcessor

    try:
        return GeneralistModel.from_pretrained(folder).eval(), GeneralistProcessor.from_pretrained(folder)
    except UserError:
        raise
    except Exception as error:  # json, safetensors, tokenizers and transformers each fail in their own way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder} cannot be read ({reason}); copy the folder anew or train again") from error


def read_for_asking(folder: Path) -> tuple[PackedModel, Processor]:
    """The same for whoever only asks: the plain classes, and transformers is not imported, where the folder is as this
    version writes it."""
    return read_plain(folder) or read_model(folder)


def weights_hash(tensors: dict[str, Tensor], start: bytes = b"") -> str:
    """SHA-256 of names and bytes, in the order of the names, after `start`."""
    digest = hashlib.sha256(start)
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
