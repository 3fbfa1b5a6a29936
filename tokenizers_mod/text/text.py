"""Text: cleaned, split into sub-words, embedded by a token, a position and a type table.

Source: Uni-Perceiver (2112.01522, section 3 and the released code). e_i = Tok[id_i] + Pos[p_i] + Type[0]; the
model applies the shared embedding norm after it. Position -1 means "neither position nor type": Tok[id] alone,
which is how the SPE token in front of every v1 sequence is embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import sincos
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.text.bpe import EOT, SPE, clean, enough, load_bpe, train_bpe
from generalist.tokenizers_mod.text.text_tensors import TextTensors, word_or_file
from generalist.tokenizers_mod.text.text_tokens import TextTokens

if TYPE_CHECKING:
    from generalist.tokenizers_mod.text.bpe_hf import BpeTokenizer


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
class Text(TextTensors):
    """Strings as sub-words ending in <|endoftext|>, with no start token.

    tokenizer: 'clip' (49,411 entries), the JSON text of a trained tokenizer (`train_bpe(...).to_str()`), or the
        name of such a file, which is read at once so that the settings stand alone when saved. Empty: it is
        learnt from the training texts (`learn_texts`) and then part of the settings.
    learn: entries of the vocabulary to learn where `tokenizer` is empty, at least 258; else not used.
    learn_inputs: they are learnt from the texts that go into tasks too, not only from their answers.
    max_length: longest text in tokens; a longer one keeps its first max_length - 1 ids and its last id.
    positions: rows of the position table. Positions are never interpolated: max_length beyond the table is refused.
    type_row: add the one type row (v1 does).
    spe_bias: add a learned vector to every <|spe|>, for prompt tuning (starts at zero).
    causal: a word sees the words before it and itself only, as in CLIP's text encoder.
    position_waves: the position table starts as sine-cosine waves of amplitude position_std instead, in which a step
        to the neighbour is a rotation that attention finds quickly; learnt from there on.
    word_std, position_std: the tables start as N(0, std). v1's are 0.02 both; but words that small move by their own
        size within tens of Adam steps, all the same way, and candidates that look alike teach a small run nothing.
    drop: in training, share of an input's words hidden as <|spe|> (word dropout, 1511.06349 section 3.2).

    >>> text = Text(tokenizer="clip", max_length=16, positions=16)
    >>> span = text.span(text.read("a photo of two dogs"))
    >>> span.length, text.decode(span.data["ids"])
    (6, 'a photo of two dogs')
    """

    name = "text"
    raw = "a str in any script"
    count = "min(pieces + 1, max_length); sub-words and <|endoftext|>"
    kind = "text"
    axes = 1

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

    def steady(self) -> tuple[str, ...]:
        return ("read", "_split", "_words_of") if self.drop else ("read", "_split", "_words_of", "span")

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
        unknown = getattr(self.backend.model, "unk_token", None)
        if all(token == unknown for token in encoding.tokens):
            raise UserError(
                f"text: the tokenizer knows no symbol of {text[:40]!r}; train it on this script or use 'clip'"
            )
        return Pieces(encoding.ids, cast(list[int], encoding.word_ids), encoding.offsets)

    def ids(self, text: str, max_length: int | None = None) -> Tensor:
        """Ids ending in <|endoftext|> (not doubled where the text already ends in it): Int[n], n <= max_length."""
        return self._ended(self._encode(text).ids, self.max_length if max_length is None else max_length)

    def _ended(self, found: list[int], limit: int) -> Tensor:
        if found[-1] != self.eot:
            found = [*found, self.eot]
        if len(found) > limit:
            found = [*found[: limit - 1], found[-1]]
        return torch.tensor(found)

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

    # CPU half

    def read(self, raw: Any) -> str:
        """A str, checked and unchanged. Raises UserError for another type, an empty text or no known symbol."""
        self._encode(raw)
        return raw

    def from_command_line(self, word: str) -> str:
        """The text of the file that the word names, else the word itself. Raises UserError for a file of bytes."""
        return word_or_file(self.name, word)

    def span(self, value: str, rng: torch.Generator | None = None) -> Span:
        """The text as n tokens at positions 0..n-1, ending in <|endoftext|>; in training with words dropped."""
        if rng is None or not self.drop:
            return self._span(self.ids(value))
        words = self._words_of(value)
        hidden = torch.rand(words.most, generator=rng) < self.drop
        ids = words.ids.clone()
        ids[words.place[hidden[words.word]]] = self.spe
        return self._span(ids)

    def masked(self, text: str, rng: torch.Generator, rate: float = 0.15) -> Span:
        """Whole-word masking: asked at every sub-token of the hidden words, labels their ids Int[m].

        Each word is chosen with probability `rate`, at least one is. All sub-tokens of a chosen word become SPE
        (80%), or uniformly random entries (10%), or stay (10%). Special tokens, such as the <|endoftext|> between
        the lines of a text, are not words and are never chosen.
        Raises UserError when the text holds nothing but special tokens.
        """
        ids, place, word, _ = self._words_of(text)
        choices, choice = word.unique(return_inverse=True)
        count = len(choices)
        if count == 0:
            raise UserError(f"text: {text[:40]!r} has no word to mask; drop it from masked modelling")
        chosen = torch.rand(count, generator=rng) < rate
        fallback = torch.randint(count, (1,), generator=rng)
        if not chosen.any():
            chosen[fallback] = True
        fate = torch.rand(count, generator=rng)
        random = torch.randint(self.vocabulary, (len(ids),), generator=rng)

        picked = chosen[choice]  # of every sub-token of a word
        target, fate = place[picked], fate[choice][picked]
        shown = ids.clone()
        shown[target] = torch.where(fate < 0.8, self.spe, torch.where(fate < 0.9, random[target], ids[target]))
        return self._span(shown).ask(target, ids[target])

    def _words_of(self, text: str) -> Words:
        """The text's ids, and which of them are of a word that can be hidden."""
        encoding = self._encode(text)
        ids = self._ended(encoding.ids, self.max_length)
        word, ordinary = self._word_of(ids, encoding)
        place = ordinary.nonzero().squeeze(1)
        return Words(ids, place, word[place], int(word.max()) + 1 if len(word) else 0)

    def caption_span(self, text: str, max_length: int | None = None) -> Span:
        """Captioning training in one pass: every word asked at its own SPE, which sees only the words before it.

            tokens    SPE w_0 SPE w_1 SPE EOT      asked at the SPEs, labels w_0 w_1 EOT
            position   0   0   1   1   2   2
            causal     0   1   0   1   0   1       a word opens a block
            hidden     1   0   1   0   1   0       an SPE is seen by itself only

        SPE_i sees what comes before the span, words < i and itself; word i sees words <= i. 2n tokens for n ids.
        """
        ids = self.ids(text, max_length)
        slots = torch.arange(2 * len(ids))
        shown = torch.stack([torch.full_like(ids, self.spe), ids], dim=1).flatten()
        span = self._span(shown, position=slots // 2, causal=slots % 2 == 1, hidden=slots % 2 == 0)
        return span.ask(slots[::2], ids)

    def next_span(self, ids: Sequence[int] | Tensor) -> Span:
        """Captioning inference: the t words so far (none at first), then the SPE that asks for word t.

        Raises UserError when the caption would pass max_length tokens.
        """
        words = torch.as_tensor(ids, dtype=torch.long)
        t = len(words)
        if t >= self.max_length:
            raise UserError(f"text: a caption of {t} tokens is at max_length {self.max_length}; stop or raise it")
        is_word = torch.arange(t + 1) < t
        return self._span(torch.cat([words, torch.tensor([self.spe])]), causal=is_word, hidden=~is_word).ask([t])

    def question_span(self, text: str, labels: Tensor | None = None, max_length: int | None = None) -> Span:
        """A question cut to max_length - 2 ids, then SPE and <|endoftext|>: asked at that SPE.

        labels: [1, ...], or None at inference. v1 uses max_length 23.
        """
        limit = self.max_length if max_length is None else max_length
        if not 3 <= limit <= self.positions:
            raise UserError(f"text: a question needs a max_length from 3 to {self.positions}, got {limit}")
        question = self._encode(text).ids
        if question[-1] == self.eot:
            question = question[:-1]
        question = question[: limit - 2]
        return self._span(torch.tensor([*question, self.spe, self.eot])).ask([len(question)], labels)

    def is_causal(self) -> bool:
        return self.causal

    def vocabulary_spans(self) -> list[Span]:
        """The vocabulary as candidates: entry i is the two-token text [i, <|endoftext|>]."""
        pairs = torch.stack([torch.arange(self.vocabulary), torch.full((self.vocabulary,), self.eot)], dim=1)
        position = torch.arange(2)  # one tensor for all
        return [self._span(pair, position) for pair in pairs]

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

    def _span(
        self, ids: Tensor, position: Tensor | None = None, causal: Tensor | None = None, hidden: Tensor | None = None
    ) -> Span:
        if self.causal and causal is None:
            causal = torch.ones(len(ids), dtype=torch.bool)
        position = torch.arange(len(ids)) if position is None else position
        # by the name it goes by in its model, which `build_modalities` may set on the instance
        data, grid = {"ids": ids, "position": position}, (len(ids),)
        return Span(self.name, data, len(ids), causal=causal, hidden=hidden, grid=grid)

    def hf_tokenizer(self) -> BpeTokenizer:
        """The same ids with the Hugging Face interface: saves and loads in a model folder."""
        from generalist.tokenizers_mod.text.bpe_hf import BpeTokenizer  # loader workers need no transformers

        return BpeTokenizer.wrap(self.backend, self.max_length)

    # device half

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.text.examples import text

        return text()

    def build(self, width: int) -> nn.Module:
        """Token, position and type tables: forward({'ids': Int[N], 'position': Int[N]}) -> Float[N, width]."""
        stds = (self.word_std, self.position_std)
        tokens = TextTokens(self.vocabulary, self.positions, width, self.type_row, stds, self.spe, self.spe_bias)
        if self.position_waves:
            waves = sincos(torch.arange(self.positions), width, base=float(self.positions))
            tokens.position.weight.data.copy_(waves * self.position_std)
        return tokens


def text_span(ids: Tensor, position: Tensor | None = None) -> Span:
    """A span of the modality "text": ids Int[n] at `position` Int[n] (0..n-1 if None; -1: no position and no type)."""
    position = torch.arange(len(ids)) if position is None else position
    return Span("text", {"ids": ids, "position": position}, len(ids), grid=(len(ids),))
