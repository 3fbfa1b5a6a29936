"""A text's settings and sub-words: cleaned, split into entries of the vocabulary, which may be learnt from texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.bpe import EOT, LONG, SPE, clean, enough, load_bpe, train_bpe
from generalist.tokenizers_mod.text.text_tensors import TextTensors


class Pieces(NamedTuple):
    """A text in sub-words: of each the id, the number of its word, its start and end in the cleaned text."""

    ids: list[int]
    word_ids: list[int]
    offsets: list[tuple[int, int]]

    @property
    def nbytes(self) -> int:
        """About: a pair and four small numbers a piece, lists of them."""
        return 200 * len(self.ids)


class Words(NamedTuple):
    """ids: Int[n], ended. Of each sub-token of a word, no special: its place Int[m], the number of its word Int[m].

    most: words and specials together.
    """

    ids: Tensor
    place: Tensor
    word: Tensor
    most: int


@dataclass
class TextWords(TextTensors):
    """The half of `Text` that goes between a str and ids; what its fields mean is said there."""

    tokenizer: str = "clip"
    learn: int = 0
    max_length: int = 128
    positions: int = 512
    type_row: bool = True
    spe_bias: bool = False
    word_std: float = 1.0
    position_std: float = 0.2
    position_waves: bool = False
    causal: bool = False
    drop: float = 0.0
    learn_inputs: bool = False

    def __post_init__(self) -> None:
        if not self.tokenizer and self.learn <= 0:
            raise UserError(
                "text: no tokenizer; give 'clip' or a tokenizer.json, or the vocabulary size to learn, learn=800"
            )
        if self.tokenizer not in ("", "clip") and not self.tokenizer.lstrip().startswith("{"):
            path = Path(self.tokenizer)
            if not path.is_file():
                raise UserError(
                    f"text: no tokenizer file {self.tokenizer!r}; give 'clip', a tokenizer.json or its text"
                )
            self.tokenizer = path.read_text(encoding="utf-8")
        if not 0 <= self.drop < 1:
            raise UserError(f"text: drop={self.drop}; it is a share, 0 <= drop < 1")
        if self.max_length < 2:
            raise UserError(
                f"text: max_length is {self.max_length}; a text needs at least 2 tokens, a word and the end"
            )
        if self.max_length > self.positions:
            raise UserError(
                f"text: max_length {self.max_length} exceeds the table of {self.positions} positions; "
                "lower max_length or raise positions"
            )

    # the backend is rebuilt where it is needed: settings pickle to loader workers as a few strings

    @property
    def backend(self) -> Tokenizer:
        """The `tokenizers` backend. UserError before it is learnt."""
        found = self.__dict__.get("_backend")
        if found is None:
            if not self.tokenizer:
                raise UserError("text: the tokenizer is not learnt yet; call learn_texts with the training texts first")
            found = self.__dict__["_backend"] = load_bpe(self.tokenizer)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_backend", "_kept", "_specials")}

    def learns_inputs(self) -> bool:
        return self.learn_inputs and not self.tokenizer

    def learn_texts(self, texts: list[str]) -> None:
        """Learn the sub-words of `texts` where `tokenizer` is empty; does nothing where there is a tokenizer."""
        if not self.tokenizer:
            if not texts:
                raise UserError("text: no training texts to learn a tokenizer from; give tokenizer='clip' or a file")
            self.tokenizer = train_bpe(texts, self.learn).to_str()

    def adopt_words(self, settings: dict[str, Any]) -> None:
        self.tokenizer = self.tokenizer or settings.get("tokenizer", "")

    def same_words(self, settings: dict[str, Any]) -> bool:
        """Also true where one of the two has learnt no words yet."""
        return self.tokenizer == settings.get("tokenizer", "") or not (self.tokenizer and settings.get("tokenizer"))

    @property
    def vocabulary(self) -> int:
        """Number of entries, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def eot(self) -> int:
        """Id of <|endoftext|>."""
        return cast(int, self.backend.token_to_id(EOT))  # load_bpe made sure of it

    @property
    def spe(self) -> int:
        """Id of <|spe|>, the token at which questions are asked and which hides a word."""
        return cast(int, self.backend.token_to_id(SPE))

    # text <-> ids

    def _encode(self, text: Any) -> Pieces:
        """`_split`, kept for the text seen last: a text is checked by `read` and then made a span of."""
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] is not text:
            kept = self.__dict__["_kept"] = (text, self._split(text))
        return kept[1]

    slow = "_split"

    def encoded(self, raw: Any) -> bytes | None:
        return raw.encode(errors="surrogatepass") if isinstance(raw, str) else None

    def keep(self, value: Pieces) -> Tensor:
        """Int32[4 n]: id, word, start and end of every piece."""
        rows = [value.ids, value.word_ids, *zip(*value.offsets, strict=True)]
        return torch.tensor(rows, dtype=torch.int32)

    def kept(self, tensor: Tensor) -> Pieces:
        ids, words, starts, ends = tensor.tolist()
        return Pieces(ids, words, list(zip(starts, ends, strict=True)))

    def _split(self, text: Any) -> Pieces:
        """Ids without the end; UserError when nothing of the text is left or nothing of it is known."""
        if not isinstance(text, str):
            raise UserError(f"text: expected a str, got {type(text).__name__}; decode bytes and join lists first")
        cleaned, encoding = enough(self.backend, text, self.positions)
        if not cleaned:
            raise UserError(f"text: {text[:40]!r} is empty after removing white space and control characters; drop it")
        unknown = self._unknown
        if all(one == unknown for one in encoding.ids):
            raise UserError(
                f"text: the tokenizer knows no symbol of {text[:40]!r}; train it on this script or use 'clip'"
            )
        return Pieces(encoding.ids, cast(list[int], encoding.word_ids), encoding.offsets)

    @property
    def _unknown(self) -> int | None:
        """Id of what stands for symbols that are not known; None where all are."""
        token = getattr(self.backend.model, "unk_token", None)
        return None if token is None else self.backend.token_to_id(token)

    def _split_all(self, texts: list[Any]) -> list[list[int]] | None:
        """The ids of each text without the end, from one call; None where one is to be looked at by itself: it is no
        str, very long, or nothing of it is left or known."""
        if not all(isinstance(text, str) and len(text) <= LONG for text in texts):
            return None
        cleaned = [clean(text) for text in texts]
        if not all(cleaned):
            return None
        found = [e.ids for e in self.backend.encode_batch_fast(cleaned, add_special_tokens=False)]
        nothing = {self._unknown}
        return None if any(nothing.issuperset(ids) for ids in found) else found

    def ids(self, text: str, max_length: int | None = None) -> Tensor:
        """Ids ending in <|endoftext|> (not doubled where the text already ends in it): Int[n], n <= max_length."""
        return self._ended(self._encode(text).ids, self.max_length if max_length is None else max_length)

    def _ended(self, found: list[int], limit: int) -> Tensor:
        return torch.tensor(ended(found, limit, self.eot))

    def decode(self, ids: Sequence[int] | Tensor, specials: bool = False) -> str:
        """Ids -> cleaned text; 'clip' puts a space between words. `specials` keeps special tokens."""
        return self.backend.decode(torch.as_tensor(ids).tolist(), skip_special_tokens=not specials).strip()

    def words(self, text: str) -> list[str]:
        """The cleaned text cut into the words that whole-word masking hides, special tokens included."""
        encoding, cleaned = self._encode(text), clean(text)
        bounds: dict[int | None, tuple[int, int]] = {}
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            bounds[word] = (bounds.get(word, (start, end))[0], end)
        return [cleaned[start:end].strip() for start, end in bounds.values()]

    def _words_of(self, text: str) -> Words:
        """The text's ids, and which of them are of a word that can be hidden."""
        encoding = self._encode(text)
        ids = self._ended(encoding.ids, self.max_length)
        word, ordinary = self._word_of(ids, encoding)
        place = ordinary.nonzero().squeeze(1)
        return Words(ids, place, word[place], int(word.max()) + 1 if len(word) else 0)

    def _word_of(self, ids: Tensor, encoding: Pieces) -> tuple[Tensor, Tensor]:
        """Of every id but the last, the end: the number of its word Int[n - 1], and whether it is one, no special."""
        word = torch.tensor(encoding.word_ids)[: len(ids) - 1]
        return word, ~torch.isin(ids[: len(word)], torch.tensor(self._special_ids()))

    def _special_ids(self) -> list[int]:
        found = self.__dict__.get("_specials")
        if found is None:
            added = self.backend.get_added_tokens_decoder()
            found = self.__dict__["_specials"] = [i for i, token in added.items() if token.special]
        return found


def ended(ids: list[int], limit: int, end: int) -> list[int]:
    """Ids with the end behind them, cut to `limit`: the first ones and the last."""
    if ids[-1] != end:
        ids = [*ids, end]
    return [*ids[: limit - 1], ids[-1]] if len(ids) > limit else ids
