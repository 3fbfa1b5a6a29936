"""A tokenizer for a vocabulary of any size that ends in the five special tokens of the official one."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.bpe import CLIP_SPECIALS, EOT, SPE, clip_bpe

OFFICIAL = 49411
BYTES = 512  # byte symbols, plain and with the end-of-word mark


@lru_cache(maxsize=8)
def tokenizer_setting(entries: int, end: int = 0, spe: int = 0) -> str:
    """The `Text.tokenizer` setting of a table of this many rows; end, spe: ids of these tokens, 0 = where they are.

    The official size is "clip". A smaller table gets the same encoding with its last merges cut off, so that ids
    of pieces that are left stay what they were and the specials are the last five; one too small for single bytes
    gets words that are the ids themselves in decimal digits ("17 4"), and so does one with its end or SPE elsewhere.
    """
    places = {EOT: end or usual(entries, EOT), SPE: spe or usual(entries, SPE)}
    if len({*places.values()}) < 2 or not all(0 <= place < entries for place in places.values()):
        raise UserError(f"ids {places} of a vocabulary of {entries}; give two of its ids (--end-id, --spe-id)")
    if any(place != usual(entries, token) for token, place in places.items()):
        return numbers(entries, places)
    if entries == OFFICIAL:
        return "clip"
    if BYTES + len(CLIP_SPECIALS) <= entries < OFFICIAL:
        return _cut(entries)
    return numbers(entries)


def usual(entries: int, token: str) -> int:
    """The id of a special token where the vocabulary ends in the five, as the official one does."""
    return entries - len(CLIP_SPECIALS) + CLIP_SPECIALS.index(token)


def _cut(entries: int) -> str:
    whole = json.loads(clip_bpe().to_str())
    pieces = entries - len(CLIP_SPECIALS)
    vocabulary = {piece: i for piece, i in whole["model"]["vocab"].items() if i < pieces}
    specials = {piece: pieces + i for i, piece in enumerate(CLIP_SPECIALS)}
    whole["model"]["vocab"] = vocabulary | specials
    whole["model"]["merges"] = whole["model"]["merges"][: pieces - BYTES]
    for token in whole["added_tokens"]:
        token["id"] = specials[token["content"]]
    for token in whole["post_processor"]["special_tokens"].values():
        token["ids"] = [specials[piece] for piece in token["tokens"]]
    return json.dumps(whole)


def numbers(entries: int, specials: dict[str, int] | None = None) -> str:
    """Words that are ids in decimal digits. specials: {token: id}; default the last five ids."""
    last = entries - len(CLIP_SPECIALS)
    specials = {s: last + i for i, s in enumerate(CLIP_SPECIALS)} if specials is None else specials
    names = {i: name for name, i in specials.items()}
    vocabulary = {names.get(i, str(i)): i for i in range(entries)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=names.get(0, "0")))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return tokenizer.to_str()


def renamed_tokenizer(
    folder: Path, entries: int, specials: tuple[str, str, str], default_ids: tuple[int, int, int]
) -> tuple[str, list[int], list[str]]:
    """The folder's tokenizer.json with its end and mask tokens under this framework's names; else ids as words."""
    path = folder / "tokenizer.json"
    renamed = {specials[1]: EOT, specials[2]: SPE}
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        vocabulary = json.loads(text)["model"]["vocab"]
        if all(isinstance(vocabulary, dict) and s in vocabulary for s in specials):
            for theirs, name in renamed.items():
                text = text.replace(json.dumps(theirs), json.dumps(name))
            return text, [vocabulary[s] for s in specials], []
    if max(default_ids) >= entries:
        default_ids = (0, entries - 2, entries - 1)
    note = "no tokenizer.json in the folder: texts are ids in decimal digits"
    return numbers(entries, {EOT: default_ids[1], SPE: default_ids[2]}), list(default_ids), [note]
