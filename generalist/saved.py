"""A model folder read back: the model with its processor, and one line where the folder is damaged."""

from __future__ import annotations

from pathlib import Path

from data.errors import UserError
from generalist.model import GeneralistModel
from generalist.processor import GeneralistProcessor


def read_model(folder: Path) -> tuple[GeneralistModel, GeneralistProcessor]:
    """The model in evaluation mode and its processor. UserError when a file is missing, empty or cut off."""
    try:
        return GeneralistModel.from_pretrained(folder).eval(), GeneralistProcessor.from_pretrained(folder)
    except UserError:
        raise
    except Exception as error:  # json, safetensors, tokenizers and transformers each fail in their own way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder} cannot be read ({reason}); copy the folder anew or train again") from error
