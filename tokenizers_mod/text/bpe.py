"""Byte-pair encodings: the 49,411-entry one of Uni-Perceiver / CLIP, and a small one trained on the spot.

Both run in the Rust `tokenizers` library and share the same steps:

    raw str --clean--> cleaned str --split--> words --byte-level BPE--> ids [n] --> + <|endoftext|>

`clean` is Python, because ftfy and HTML clean-up have no counterpart among the library's normalizers. The
backend's own normalizer repeats what it can (white space, lower case), so `clean` followed by the backend is
the definition, and the backend alone (a plain `tokenizers.Tokenizer.from_file`) agrees on every text that
needs no ftfy or HTML repair. The Hugging Face form is in `generalist.tokenizers_mod.text.bpe_hf`.

Source: CLIP (2103.00020) and the Uni-Perceiver vocabulary (2112.01522): 256 byte symbols, the same 256 with
the end-of-word mark, 48,894 merges, five special tokens. No start token; texts end in <|endoftext|>.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.cleaning import lower

EOT = "<|endoftext|>"
SPE = "<|spe|>"
# In the order of their ids, 49406 to 49410.
CLIP_SPECIALS = ("<|startoftext|>", EOT, "<|mask|>", "<|gen|>", SPE)
CLIP_MERGES = 49152 - 256 - 2  # lines 1 to 48,894 of the merge file; the rest is unused

_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # clitics, letter runs, single digits, others
_END = "</w>"
LONG = 20_000  # letters up to which a text is tokenised whole, whatever is read of it


def clean(text: str) -> str:
    """Repair mojibake and control characters (ftfy), unescape HTML twice, collapse white space, lower-case.

    Idempotent on ordinary text but not on text that is HTML-escaped more than twice: apply it once.
    """
    return lower(text)


def enough(backend: Tokenizer, text: str, pieces: int, clean: Callable[[str], str] = clean) -> tuple[str, Any]:
    """As much of a text, cleaned, as holds more than `pieces` sub-words (or all of it), and its encoding.

    Of a very long text that is its beginning up to a white space, doubled until it holds enough.
    """
    most = max(LONG, 64 * pieces)
    while True:
        part = text
        if len(text) > most:
            end = max(text.rfind(c, 0, most) for c in " \n\t")
            part = text[: end if end > most // 2 else most]
        cleaned = clean(part)
        encoding = backend.encode(cleaned, add_special_tokens=False)
        if len(part) == len(text) or len(encoding.ids) > pieces:
            return cleaned, encoding
        most *= 2


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes, in CLIP's order (printable bytes first, then the others)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _clip_merges() -> list[tuple[str, str]]:
    # find_spec locates the package without importing it: open_clip takes seconds to import.
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise UserError("the CLIP merge file comes with open_clip; install it: pip install open_clip_torch")
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    return [(left, right) for left, right in map(str.split, lines[1 : CLIP_MERGES + 1])]


def clip_bpe() -> Tokenizer:
    """The 49,411-entry tokenizer: <|endoftext|> is 49407 and <|spe|> 49410.

    The split pattern has no <|mask|>, so that text falls into ordinary pieces, as in the published one. One
    difference is on purpose: a special token written directly behind punctuation ("?<|spe|>") is recognised,
    where the published pattern swallows its first two characters into the punctuation run.
    """
    return _finish(_clip_words(CLIP_SPECIALS), [s for s in CLIP_SPECIALS if s != "<|mask|>"])


def open_clip_bpe() -> Tokenizer:
    """The 49,408 entries of open_clip's own tokenizer, its texts between <start_of_text> and <end_of_text>."""
    start, end = specials = ("<start_of_text>", "<end_of_text>")
    tokenizer = _clip_words(specials)
    tokenizer.add_special_tokens([_special(s) for s in specials])
    ids = [(token, tokenizer.token_to_id(token)) for token in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
    return tokenizer


def _clip_words(specials: Sequence[str]) -> Tokenizer:
    """CLIP's sub-words and these special tokens behind them."""
    symbols, merges = byte_symbols(), _clip_merges()
    entries = [*symbols, *(s + _END for s in symbols), *(a + b for a, b in merges), *specials]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=_END))
    tokenizer.normalizer = normalizers.Sequence(_cleaning())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # "Ġ" stands for the space byte: the end-of-word mark becomes a space before bytes become text again.
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex(f"{_END}$"), "Ġ"), decoders.ByteLevel()])
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int, specials: Sequence[str] = (EOT, SPE)) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` entries, learned from `texts` (deterministic).

    Every script can be encoded: all 256 bytes are entries, so nothing is unknown. A word's leading space belongs
    to its first token, so `decode` gives the cleaned text back exactly. The special tokens take ids 0, 1, ...

    Raises UserError when `vocab_size` cannot hold the bytes and the special tokens, or when EOT or SPE is
    missing from `specials`.
    """
    for needed in (EOT, SPE):
        if needed not in specials:
            raise UserError(f"train_bpe: specials lack {needed!r}; every text ends in {EOT!r} and asks at {SPE!r}")
    if vocab_size < 256 + len(specials):
        least = 256 + len(specials)
        raise UserError(f"train_bpe: vocab_size {vocab_size} is too small; 256 bytes and the specials need {least}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([*_cleaning(), normalizers.Prepend(" ")])
    spaced = "|".join(piece if piece.startswith("'") else f" ?{piece}" for piece in _PIECES.split("|"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(spaced), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_special(s) for s in specials],
        initial_alphabet=sorted(byte_symbols()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((clean(text) for text in texts), trainer)
    return _finish(tokenizer, specials)


def load_bpe(source: str) -> Tokenizer:
    """'clip', or the JSON text of a tokenizer (what `Tokenizer.to_str` gives) -> the tokenizer.

    Raises UserError when the JSON is not a tokenizer's or lacks <|endoftext|> or <|spe|>.
    """
    if source == "clip":
        return clip_bpe()
    try:
        tokenizer = Tokenizer.from_str(source)
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(f"tokenizer: not a tokenizer.json ({error}); use one saved by train_bpe, or 'clip'") from error
    for needed in (EOT, SPE):
        if tokenizer.token_to_id(needed) is None:
            raise UserError(f"tokenizer: it has no {needed!r}; train it with train_bpe or add that special token")
    # Lengths are ours to cut: a saved truncation or padding would act before <|endoftext|> is looked at.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _cleaning() -> list[normalizers.Normalizer]:
    return [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]


def _special(content: str) -> AddedToken:
    return AddedToken(content, special=True, normalized=False)


def _finish(tokenizer: Tokenizer, specials: Sequence[str]) -> Tokenizer:
    tokenizer.add_special_tokens([_special(s) for s in specials])
    # Appending after truncation to L-1 ids is the same as keeping the first L-1 ids and the last one.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOT}", pair=f"$A {EOT} $B {EOT}", special_tokens=[(EOT, tokenizer.token_to_id(EOT))]
    )
    return tokenizer
