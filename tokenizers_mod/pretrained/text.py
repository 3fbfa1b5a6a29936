"""Text through a pretrained language encoder: any encoder that transformers' AutoModel loads, with its own vocabulary.

Uni-Perceiver v2 (2211.09808, section 3.1; spec 2.2): RoBERTa-base, tuned with the rest; class names, captions and
vocabulary words go through it alike. Tokens whose question depends on an order (words of a caption and their slots)
would see their own answer through a bidirectional encoder, so they stand for themselves: the encoder's word row plus a
position (guess: the paper does not say how its captions are trained).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest, one_line
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import weights_follow
from generalist.tokenizers_mod.libraries import weights, zoo
from generalist.tokenizers_mod.pretrained.base import Pretrained, vector
from generalist.tokenizers_mod.pretrained.text_encoded import POOLINGS, EncodedText
from generalist.tokenizers_mod.text.bpe import enough
from generalist.tokenizers_mod.text.text import Pieces, Text
from generalist.tokenizers_mod.text.text_tokens import NO_POSITION

MOST = 256  # pieces of a text that are read where `room_for` more is made


@dataclass
class PretrainedText(Pretrained, Text):
    """encoder: a folder, "zoo:minilm", "hub:NAME" or a hub name that is on this machine, of an AutoModel encoder with a
    fast tokenizer; its weights come with it.

    frozen, lora, features: as of `Pretrained`. A frozen encoder takes each text alone, so that what is kept does not
    depend on its company; remember: how many texts' hidden states are also kept in memory.
    pooling: "" = a token a sub-word; "mean" or "cls" = one token a text, as sentence-transformers pools; "auto" = as
    the encoder's folder says.
    config, start, end, hide and tokenizer are read from it at the first use and then part of the settings, so that a
    saved model stands alone. `end` is the token that ends a text, `hide` the one that hides a word and asks for it
    (SPE in a text).

    >>> text = PretrainedText(**PretrainedText.examples().settings)  # or encoder="zoo:minilm", pooling="auto"
    >>> text.span(text.read("a cat")).length  # two words and the end
    3
    """

    whole: ClassVar[bool] = True

    tokenizer: str = ""
    encoder: str = ""
    remember: int = 0
    pooling: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    end: str = ""
    hide: str = ""

    def __post_init__(self) -> None:
        if not self.tokenizer and not self.encoder:
            raise UserError("text: give encoder=, the folder or name of a pretrained text encoder (such as zoo:minilm)")
        self.check_learning("text")
        if self.remember and not self.frozen:
            raise UserError("text: remember= is for a frozen encoder; add frozen=true, or leave remember out")
        if self.pooling not in ("", "auto", *POOLINGS):
            raise UserError(f"text: pooling {self.pooling!r}; {nearest(self.pooling, ('auto', *POOLINGS))}")
        if self.tokenizer:
            self._check()

    def _check(self) -> None:
        room = self.config.get("max_position_embeddings", self.positions)
        # RoBERTa's table starts behind its padding index, and the start token takes a place
        free = room - 1 - (self.config.get("pad_token_id") or 0) - 1
        if self.max_length > free:
            raise UserError(f"text: max_length {self.max_length} exceeds the {free} positions that the encoder leaves")
        super(Pretrained, self).__post_init__()

    @property
    def place(self) -> str:
        """The encoder's folder; a name that is neither a folder's nor the zoo's is the hub's."""
        if self.encoder.startswith(weights.ZOO) and (found := zoo.entry(self.encoder)).modality != "text":
            raise UserError(f"text: {self.encoder} is no encoder of texts but of {found.modality}")
        if self.encoder.startswith((weights.ZOO, weights.HUB)):
            return str(weights.resolve(self.encoder, "text"))
        if Path(self.encoder).is_dir():
            return self.encoder
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.encoder) is None:
            raise UserError(f"text: no pretrained encoder {self.encoder!r}; give its folder, zoo:NAME or hub:NAME")
        return str(weights.resolve(weights.HUB + self.encoder, "text"))

    def adopt(self) -> None:
        """Read the encoder's folder, once."""
        if self.tokenizer:
            return
        from transformers import AutoConfig, AutoTokenizer

        place = self.place
        try:
            config = AutoConfig.from_pretrained(place)
            found = AutoTokenizer.from_pretrained(place, use_fast=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"text: no pretrained encoder {self.encoder!r} ({reason}); give its folder") from error
        backend = getattr(found, "backend_tokenizer", None)
        end, hide = found.sep_token or found.eos_token, found.mask_token
        if backend is None or not end or not hide:
            raise UserError(f"text: {self.encoder!r} needs a fast tokenizer with a separator and a mask token")
        weights.check_words(found, f"text: {self.encoder!r}")
        backend.no_padding()
        backend.no_truncation()  # a text is cut here, to max_length
        self.config = config.to_dict()
        self.tokenizer, self.end, self.hide = backend.to_str(), end, hide
        self.start = found.cls_token or found.bos_token or ""
        if self.pooling == "auto":
            self.pooling = pooling_of(Path(place))
        self.weights = self.encoder
        self._check()
        if self.frozen and not weights_follow():
            with torch.random.fork_rng(devices=[]):
                self.digest = weights.digest(self._network().state_dict())

    def settings(self) -> dict[str, Any]:
        self.adopt()
        return super().settings()

    def told(self) -> list[str]:
        return [*super().told(), *self.origin()]

    def learn_texts(self, texts: list[str]) -> None:
        """Nothing is learnt: the encoder brings its vocabulary."""
        self.adopt()

    def adopt_words(self, settings: dict[str, Any]) -> None:
        """None: the encoder brings its own, with the tokens that end and hide."""

    @property
    def backend(self) -> Tokenizer:
        if "_backend" not in self.__dict__:
            self.adopt()
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

    def span(self, value: str, rng: torch.Generator | None = None) -> Span:
        """A token a sub-word, or with `pooling` one token a text: its ids and positions are Int[m] all the same."""
        made = super().span(value, rng)
        return Span(self.name, made.data, 1, grid=(1,)) if self.pooling else made

    def _span(
        self, ids: Tensor, position: Tensor | None = None, causal: Tensor | None = None, hidden: Tensor | None = None
    ) -> Span:
        if causal is not None:  # stands for itself: positions -2, -3, ...
            position = -2 - (torch.arange(len(ids)) if position is None else position)
        return super()._span(ids, position, causal, hidden)

    def masked(self, text: str, rng: torch.Generator, rate: float = 0.15) -> Span:
        if self.pooling:
            raise UserError(f"{self.name}: pooling={self.pooling} leaves no words to hide; leave it out")
        return super().masked(text, rng, rate)

    def vector(self, raw: Any) -> np.ndarray | None:
        return vector(self, raw)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_alone"}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        data, real = super().padded(tensors)
        if not self.pooling:
            if real is not None:
                data["position"] = torch.where(real.reshape(-1), data["position"], NO_POSITION)
            return data, real
        if real is not None:
            keep = real.reshape(-1)
            data = {name: value[keep] for name, value in data.items()}
        return data, None

    def room_for(self, learn: int, max_length: int, inputs: bool) -> Self:
        """Its vocabulary is there; longer texts up to `MOST` pieces."""
        longest = max(self.max_length, min(max_length, MOST))
        return replace(self, max_length=longest, positions=longest)

    def hf_tokenizer(self) -> Any:
        """The same ids with the Hugging Face interface."""
        from transformers import PreTrainedTokenizerFast

        names = {"eos_token": self.end, "pad_token": self.end, "mask_token": self.hide}
        return PreTrainedTokenizerFast(tokenizer_object=self.backend, model_max_length=self.max_length, **names)

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import text

        return text()

    def build(self, width: int) -> nn.Module:
        self.adopt()
        return EncodedText(self._network(), width, self)

    def _network(self) -> nn.Module:
        """The encoder with its pretrained weights; its bare architecture where a saved model's weights follow."""
        from transformers import CONFIG_MAPPING, AutoModel

        if weights_follow() or not self.encoder:
            values = dict(self.config)
            return AutoModel.from_config(CONFIG_MAPPING[values.pop("model_type")](**values))
        place = self.place
        weights.check_folder(Path(place), "text")
        try:
            return AutoModel.from_pretrained(place)
        except (OSError, ValueError) as error:
            reason = one_line(error)
            where = self.encoder if not Path(place).exists() else f"{self.encoder} (no weights)"
            raise UserError(f"text: cannot load the pretrained encoder {where} ({reason})") from error


def pooling_of(folder: Path) -> str:
    """How sentence-transformers pools this encoder; "" where its folder does not say. UserError for another way."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return ""
    config = json.loads(path.read_text(encoding="utf-8"))
    asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    named = config.get("pooling_mode") or {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get(
        asked[0] if len(asked) == 1 else "", ""
    )
    if named not in POOLINGS:
        raise UserError(f"text: {folder} pools by {asked or named}; give pooling=mean, pooling=cls or none")
    return named
