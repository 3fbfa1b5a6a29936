"""The cache on disk: under its limit, whole files only, decoded samples equal to the bit."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from generalist.data.base.errors import UserError
from generalist.data.files.cache import SizedCache, content_key
from generalist.tokenizers_mod.base.cached import cache_reads
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image


def test_the_cache_stays_under_its_limit_and_drops_what_was_not_used_for_longest(tmp_path):
    made = []

    def make(key):
        return lambda path: made.append(key) or path.write_bytes(bytes(100))

    cache = SizedCache(tmp_path / "c", limit=350)
    for at, key in enumerate("abcad"):
        path = cache.get(key, make(key))
        os.utime(path, (at, at))
    assert made == list("abcd"), "a was there the second time"
    assert sorted(p.name for _, _, p in cache.files()) == ["a", "c", "d"], "b was used longest ago"
    assert cache.size() <= 350


def test_a_decoded_picture_is_kept_and_read_back_to_the_bit_while_the_cache_stays_under_its_limit(tmp_path):
    files = []
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (30, 20, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    plain, modality = Image(channels=3), Image(channels=3)
    size = 4 * 3 * 30 * 20
    cache = SizedCache(tmp_path / "decoded", limit=4 * (size + 200), small=True)
    read = cache_reads(modality, cache)
    for _ in range(2):
        assert all(torch.equal(modality.read(f), plain.read(f)) for f in files[:3])
    assert (read.hits, read.misses) == (3, 3)
    assert torch.equal(pickle.loads(pickle.dumps(modality)).read(files[0]), plain.read(files[0]))
    assert modality.settings() == plain.settings()
    assert all(torch.equal(modality.read(f), plain.read(f)) for f in files)
    assert 0 < cache.size() <= cache.limit
    for _, _, path in cache.files():
        path.write_bytes(path.read_bytes()[:50])
    assert all(torch.equal(modality.read(f), plain.read(f)) for f in files), "a file that is not whole is made anew"


LINES = [
    f"number {i}: " + "a quick brown fox and eleven lazy dogs jump over the same fence again " * 8 for i in range(5)
]


def test_a_long_text_is_split_once_and_its_span_words_and_masks_are_the_same_from_the_cache(tmp_path):
    plain, text = Text(), Text()
    read = cache_reads(text, SizedCache(tmp_path / "c", limit=10**6, small=True))

    def all_of(modality, line):
        spans = [modality.span(modality.read(line)), modality.masked(line, torch.Generator().manual_seed(3))]
        spans += [modality.caption_span(line), modality.question_span(line)]
        return [s.data["ids"] for s in spans], modality.words(line)

    for line in [*LINES, *LINES, "a word <|endoftext|> and another" * 20]:
        ours, theirs = all_of(text, line), all_of(plain, line)
        assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
        assert ours[1] == theirs[1]
    assert (read.hits, read.misses) == (5, 6)
    again = pickle.loads(pickle.dumps(text))
    assert torch.equal(again.span(LINES[0]).data["ids"], plain.span(LINES[0]).data["ids"])
    assert again._split.hits == 6, "a loader's worker finds what another process has split"
    text.read("short words are split where they are")
    assert (read.hits, read.misses) == (5, 6)


def test_another_tokenizer_or_length_finds_nothing_of_the_first_ones_texts(tmp_path):
    cache = SizedCache(tmp_path / "c", limit=10**6, small=True)
    learnt = train_bpe(LINES, 300).to_str()
    kinds = [{}, {"max_length": 7}, {"tokenizer": learnt}]
    reads = []
    for settings in kinds:
        text = Text(**settings)
        reads.append(cache_reads(text, cache))
        text.read(LINES[0])
        assert torch.equal(text.span(LINES[0]).data["ids"], Text(**settings).span(LINES[0]).data["ids"])
    assert [(r.hits, r.misses) for r in reads] == [(0, 1)] * 3
    assert len(cache.files()) == 3


def test_texts_stay_under_the_limit_and_a_spoilt_file_is_made_anew(tmp_path):
    text, plain = Text(), Text()
    cache = SizedCache(tmp_path / "c", limit=6000, small=True)
    read = cache_reads(text, cache)
    for line in LINES:
        text.read(line)
    assert 0 < cache.size() <= 6000
    assert len(cache.files()) < len(LINES), "the oldest were dropped"
    kept = len(cache.files())
    for _, size, path in cache.files():
        path.write_bytes(path.read_bytes()[: size // 2])
    for line in LINES[-kept:]:
        assert torch.equal(text.span(text.read(line)).data["ids"], plain.span(line).data["ids"])
    assert read.hits == 0
    assert read.misses == len(LINES) + kept
    text.read(LINES[0])
    text.read(LINES[-1])
    assert read.hits == 1, "made anew, then found"


def test_a_file_that_could_not_be_made_leaves_nothing_behind(tmp_path):
    cache = SizedCache(tmp_path / "c", limit=1000, small=True)

    def fails(path):
        path.write_bytes(b"half")
        raise UserError("no")

    with pytest.raises(UserError):
        cache.get(content_key("x"), fails)
    assert not [p for p in (tmp_path / "c").rglob("*") if p.is_file()]
    assert content_key("ab", "c") != content_key("a", "bc")
