"""Text: cleaned, split into sub-words, embedded by a token, a position and a type table.

Source: Uni-Perceiver (2112.01522, section 3 and the released code). e_i = Tok[id_i] + Pos[p_i] + Type[0]; the
model applies the shared embedding norm after it. Position -1 means "neither position nor type": Tok[id] alone,
which is how the SPE token in front of every v1 sequence is embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import sincos
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.text.text_tensors import word_or_file
from generalist.tokenizers_mod.text.text_tokens import TextTokens
from generalist.tokenizers_mod.text.words import Pieces as Pieces
from generalist.tokenizers_mod.text.words import TextWords, ended

if TYPE_CHECKING:
    from generalist.tokenizers_mod.text.bpe_hf import BpeTokenizer


@dataclass
class Text(TextWords):
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

    def room_for(self, learn: int, max_length: int, inputs: bool) -> Self:
        """Large enough for more texts. learn: entries of the vocabulary; inputs: texts go in too, not only names."""
        longest, more = max(self.max_length, max_length), self.learn_inputs or inputs
        entries, drop = max(self.learn, learn), 0.1 if more else 0.0
        return replace(self, learn=entries, max_length=longest, positions=longest, learn_inputs=more, drop=drop)

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

    def many(self, raws: list[Any]) -> list[Span]:
        """`span(read(raw))` of each, by one call of the tokenizer and as views of one tensor."""
        found = self._split_all(raws) if type(self) is Text else None  # a subclass may read or cut otherwise
        if found is None:
            return super().many(raws)
        end = self.eot
        rows = [ended(ids, self.max_length, end) for ids in found]
        lengths = [len(row) for row in rows]
        ids = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64, sum(lengths))).split(lengths)
        others = {n: (torch.arange(n), torch.ones(n, dtype=torch.bool) if self.causal else None) for n in set(lengths)}
        made = zip(lengths, ids, map(others.__getitem__, lengths), strict=True)
        return [
            Span(self.name, {"ids": own, "position": position}, n, causal=causal, grid=(n,))
            for n, own, (position, causal) in made
        ]

    def steady(self) -> tuple[str, ...]:
        return ("read", "_split", "_words_of") if self.drop else ("read", "_split", "_words_of", "span")

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
