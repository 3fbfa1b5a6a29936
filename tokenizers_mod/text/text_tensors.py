"""Texts as the padded tensors that Hugging Face clients hold, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.base.files import is_regular
from generalist.data.base.limits import MB, limits, over
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality


class TextTensors(Modality):
    """What `Text` says of input_ids and attention_mask."""

    positions: int
    max_length: int
    reads_words = True

    @property
    def eot(self) -> int:
        """Id of <|endoftext|>."""
        raise NotImplementedError

    @property
    def spe(self) -> int:
        """Id of the token that hides a word."""
        raise NotImplementedError

    def hf_tokenizer(self) -> Any:
        """The same ids with the Hugging Face interface."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int] | Tensor, specials: bool = False) -> str:
        """Ids -> text."""
        raise NotImplementedError

    def blank(self) -> dict[str, float]:
        """A hidden word, as in masked modelling."""
        return {"ids": self.spe}

    def tokens_in_words(self, span: Span) -> list[str]:
        """The sub-words; [] where a text is one token."""
        ids = span.data["ids"].tolist()
        return [self.decode([one], specials=True) for one in ids] if len(ids) == span.length else []

    def ids(self, text: str, max_length: int | None = None) -> Tensor:
        """Int[n], ending in <|endoftext|>."""
        raise NotImplementedError

    tensor_names = ("input_ids", "attention_mask")

    def tensors(self, values: list[str]) -> dict[str, Tensor]:
        """Texts -> input_ids Int[B n] filled with <|endoftext|>, attention_mask Int[B n]."""
        ids = [self.ids(value) for value in values]
        real = [torch.ones_like(i) for i in ids]
        fill: dict[str, Any] = {"batch_first": True, "padding_value": self.eot}
        return {
            "input_ids": nn.utils.rnn.pad_sequence(ids, **fill),
            "attention_mask": nn.utils.rnn.pad_sequence(real, batch_first=True),
        }

    def beginning(self) -> dict[str, Tensor]:
        """The tensors of a text of which nothing is written yet: <|endoftext|> alone."""
        ids = torch.tensor([[self.eot]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """input_ids Int[B n], attention_mask [B n] or nothing (all real). UserError past the position table."""
        ids = tensors["input_ids"]
        if ids.shape[1] > self.positions and not torch.compiler.is_compiling():
            raise UserError(f"text: {ids.shape[1]} tokens, the table has {self.positions} positions; truncate the text")
        position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        real = tensors.get("attention_mask")
        data = {"ids": ids.reshape(-1), "position": position.reshape(-1)}
        return data, None if real is None else real.bool()


def word_or_file(name: str, word: str) -> str:
    """The text of the file that a word of the command line names, else the word. UserError for a file of bytes."""
    if not is_regular(word):
        return word
    if (size := Path(word).stat().st_size) > limits().text_mb * MB:
        raise over(f"--{name} {word}", "text_mb", f"{size / MB:,.0f} MB")
    try:
        return Path(word).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"--{name}: {word} is not UTF-8 text ({error.reason}); convert it first") from error
