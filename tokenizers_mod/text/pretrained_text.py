"""Text through a pretrained language encoder: any encoder that transformers' AutoModel loads, with its own vocabulary.

Uni-Perceiver v2 (2211.09808, section 3.1; spec 2.2): RoBERTa-base, tuned with the rest; class names, captions and
vocabulary words go through it alike. Tokens whose question depends on an order (words of a caption and their slots)
would see their own answer through a bidirectional encoder, so they stand for themselves: the encoder's word row plus a
position (guess: the paper does not say how its captions are trained).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.tokenizer import Tokenizer as Tokens
from generalist.tokenizers_mod.text.bpe import enough
from generalist.tokenizers_mod.text.text import Pieces, Text
from generalist.tokenizers_mod.text.text_tokens import NO_POSITION


@dataclass
class PretrainedText(Text):
    """encoder: a folder (or a hub name) of an AutoModel encoder with a fast tokenizer; frozen: its weights stay.

    remember: how many texts a frozen encoder keeps the hidden states of; each is encoded once, alone, so that what is
    kept does not depend on its company.
    config, start, end, hide and tokenizer are read from it at the first use and then part of the settings, so that a
    saved model stands alone. `end` is the token that ends a text, `hide` the one that hides a word and asks for it
    (SPE in a text).
    """

    tokenizer: str = ""
    encoder: str = ""
    frozen: bool = False
    remember: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    end: str = ""
    hide: str = ""

    def __post_init__(self) -> None:
        if not self.tokenizer and not self.encoder:
            raise UserError("text: give encoder=, the folder or name of a pretrained text encoder")
        if self.remember and not self.frozen:
            raise UserError("text: remember= is for a frozen encoder; add frozen=true, or leave remember out")
        if self.tokenizer:
            self._check()

    def _check(self) -> None:
        room = self.config.get("max_position_embeddings", self.positions)
        # RoBERTa's table starts behind its padding index, and the start token takes a place
        free = room - 1 - (self.config.get("pad_token_id") or 0) - 1
        if self.max_length > free:
            raise UserError(f"text: max_length {self.max_length} exceeds the {free} positions that the encoder leaves")
        super().__post_init__()

    def _adopt(self) -> None:
        """Read the encoder's folder, once."""
        if self.tokenizer:
            return
        from transformers import AutoConfig, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self.encoder)
            found = AutoTokenizer.from_pretrained(self.encoder, use_fast=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"text: no pretrained encoder {self.encoder!r} ({reason}); give its folder") from error
        backend = getattr(found, "backend_tokenizer", None)
        end, hide = found.sep_token or found.eos_token, found.mask_token
        if backend is None or not end or not hide:
            raise UserError(f"text: {self.encoder!r} needs a fast tokenizer with a separator and a mask token")
        self.config = config.to_dict()
        self.tokenizer, self.end, self.hide = backend.to_str(), end, hide
        self.start = found.cls_token or found.bos_token or ""
        self._check()

    def settings(self) -> dict[str, Any]:
        self._adopt()
        return super().settings()

    def learn_texts(self, texts: list[str]) -> None:
        """Nothing is learnt: the encoder brings its vocabulary."""
        self._adopt()

    def adopt_words(self, settings: dict[str, Any]) -> None:
        """None: the encoder brings its own, with the tokens that end and hide."""

    @property
    def backend(self) -> Tokenizer:
        if "_backend" not in self.__dict__:
            self._adopt()
            self.__dict__["_backend"] = Tokenizer.from_str(self.tokenizer)
        return self.__dict__["_backend"]

    @property
    def eot(self) -> int:
        return cast(int, self.backend.token_to_id(self.end))

    @property
    def spe(self) -> int:
        return cast(int, self.backend.token_to_id(self.hide))

    def _split(self, text: Any) -> Pieces:
        if not isinstance(text, str):
            raise UserError(f"text: expected a str, got {type(text).__name__}; decode bytes and join lists first")
        _, encoding = enough(self.backend, text, self.positions, lambda part: " ".join(part.split()))
        if not encoding.ids:
            raise UserError(f"text: {text[:40]!r} is empty after removing white space; drop it")
        return Pieces(encoding.ids, cast(list[int], encoding.word_ids), encoding.offsets)

    def _span(
        self, ids: Tensor, position: Tensor | None = None, causal: Tensor | None = None, hidden: Tensor | None = None
    ) -> Span:
        if causal is not None:  # stands for itself: positions -2, -3, ...
            position = -2 - (torch.arange(len(ids)) if position is None else position)
        return super()._span(ids, position, causal, hidden)

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        data, real = super().padded(tensors)
        if real is not None:
            data["position"] = torch.where(real.reshape(-1), data["position"], NO_POSITION)
        return data, real

    def hf_tokenizer(self) -> Any:
        """The same ids with the Hugging Face interface."""
        from transformers import PreTrainedTokenizerFast

        names = {"eos_token": self.end, "pad_token": self.end, "mask_token": self.hide}
        return PreTrainedTokenizerFast(tokenizer_object=self.backend, model_max_length=self.max_length, **names)

    def build(self, width: int) -> nn.Module:
        self._adopt()
        return EncodedText(self._network(), width, self)

    def _network(self) -> nn.Module:
        """The encoder with its pretrained weights; its bare architecture where a saved model's weights follow."""
        from transformers import CONFIG_MAPPING, AutoModel

        on_meta = torch.get_default_device().type == "meta"
        if on_meta or not self.encoder:
            values = dict(self.config)
            return AutoModel.from_config(CONFIG_MAPPING[values.pop("model_type")](**values))
        try:
            return AutoModel.from_pretrained(self.encoder)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            where = self.encoder if not Path(self.encoder).exists() else f"{self.encoder} (no weights)"
            raise UserError(f"text: cannot load the pretrained encoder {where} ({reason})") from error


class EncodedText(Tokens):
    """forward({"ids": Int[N], "position": Int[N]}) -> Float[N, width].

    A text is a run of tokens at positions 0, 1, ...; it goes through the encoder whole, behind the start token. A token
    at position -1 stands for itself without a position, at -2 - p with position p.
    """

    def __init__(self, encoder: nn.Module, width: int, settings: PretrainedText) -> None:
        super().__init__()
        self.encoder = encoder
        self.frozen = settings.frozen
        if settings.frozen:
            encoder.requires_grad_(False)
        inner = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.start = settings.backend.token_to_id(settings.start) if settings.start else None
        self.fill = settings.eot
        self.remember = settings.remember
        self.kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self.position = nn.Embedding(settings.positions, inner)
        nn.init.normal_(self.position.weight, std=0.02)
        self.projection: nn.Module = nn.Identity() if inner == width else nn.Linear(inner, width)
        self.train(self.training)

    def train(self, mode: bool = True) -> EncodedText:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()  # no dropout in what does not learn
        return self

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        ids, position = data["ids"], data["position"]
        alone = position < 0
        rows = self.encoder.get_input_embeddings()(ids)  # type: ignore[operator]
        place = self.position((-2 - position).clamp(min=0))
        rows = rows + torch.where((position < NO_POSITION).unsqueeze(-1), place, 0.0)
        if not bool(alone.all()):
            rows = rows.index_put((~alone,), self._encoded(ids[~alone], position[~alone]).to(rows.dtype))
        return self.projection(rows)

    def _encoded(self, ids: Tensor, position: Tensor) -> Tensor:
        """Texts laid end to end, Int[n] x 2 -> Float[n inner]."""
        first = (position == 0).nonzero().squeeze(1).tolist()
        lengths = [b - a for a, b in zip(first, [*first[1:], len(ids)], strict=True)]
        if self.remember:
            return torch.cat([self._remembered(text) for text in ids.split(lengths)])
        return self._hidden(ids, lengths)

    def _remembered(self, text: Tensor) -> Tensor:
        """The hidden states of one text, Int[n] -> Float[n inner], from memory where it was met before."""
        key = tuple(text.tolist())
        if key not in self.kept:
            self.kept[key] = self._hidden(text, [len(text)])
            if len(self.kept) > self.remember:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    def _apply(self, fn: Any, recurse: bool = True) -> EncodedText:
        self.kept.clear()  # another device or type
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.kept.clear()  # other weights
        super()._load_from_state_dict(*args, **kwargs)

    def _hidden(self, ids: Tensor, lengths: list[int]) -> Tensor:
        padded = pad_sequence(list(ids.split(lengths)), batch_first=True, padding_value=self.fill)
        real = torch.arange(padded.shape[1], device=ids.device) < torch.tensor(lengths, device=ids.device).unsqueeze(1)
        skip = 0
        if self.start is not None:
            padded, skip = nn.functional.pad(padded, (1, 0), value=self.start), 1
        mask = nn.functional.pad(real, (skip, 0), value=True).long()
        with frozen(self.frozen):
            hidden = self.encoder(input_ids=padded, attention_mask=mask).last_hidden_state
        return hidden[:, skip:][real]


@contextmanager
def frozen(off: bool) -> Iterator[None]:
    """No gradient inside where `off`."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not off):
        yield
