"""Padding, truncation and max_length of texts, as transformers' clients say them: honoured or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.text_tensors import TextTensors

LENGTHS = ("padding", "truncation", "max_length")


def fitted(tensors: dict[str, Tensor], text: TextTensors, words: Mapping[str, Any]) -> dict[str, Tensor]:
    """input_ids and attention_mask cut and filled as asked. UserError: longer than may be, or ragged and not filled."""
    ids, real = tensors["input_ids"], tensors["attention_mask"]
    lengths = real.sum(1)
    most, truncation = words.get("max_length"), words.get("truncation")
    cuts = truncation not in (None, False, "do_not_truncate")
    padding = words.get("padding")
    if most is None and padding == "max_length":
        most = text.max_length
    if most is not None and not 2 <= int(most) <= text.positions:
        raise UserError(f"max_length={most}: this model's texts have 2 to {text.positions} tokens")
    if truncation is False or (most is not None and not cuts):
        bound = int(most or text.max_length)
        if int(lengths.max()) > bound:
            raise UserError(f"a text of {int(lengths.max())} tokens is longer than {bound}; give truncation=True")
    elif most is not None:
        over = lengths > int(most)
        ids, real = ids[:, : int(most)].clone(), real[:, : int(most)]
        ids[over, -1] = text.eot
        lengths = real.sum(1)
    if padding in (False, "do_not_pad") and len(set(lengths.tolist())) > 1:
        raise UserError(
            f"padding={padding!r}: these texts have {lengths.tolist()} tokens; one tensor needs padding=True"
        )
    width = int(most) if padding == "max_length" and most is not None else int(lengths.max())
    more = width - ids.shape[1]
    ids = pad(ids, (0, more), value=text.eot) if more > 0 else ids[:, :width]
    real = pad(real, (0, more)) if more > 0 else real[:, :width]
    return tensors | {"input_ids": ids, "attention_mask": real.to(torch.int64)}


def check(words: Mapping[str, Any], texts: bool) -> None:
    """UserError where a word about lengths would be let pass unheard."""
    if not texts and words.get("max_length") is not None:
        raise UserError(f"max_length={words['max_length']} is said of a text, and none is given")
