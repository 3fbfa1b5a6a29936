"""The cache on disk: under its limit, whole files only, decoded samples equal to the bit."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from data.cache import SizedCache, content_key
from data.errors import UserError
from tokenizers_mod.cached import cache_reads
from tokenizers_mod.image import Image


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


def test_a_file_that_could_not_be_made_leaves_nothing_behind(tmp_path):
    cache = SizedCache(tmp_path / "c", limit=1000, small=True)

    def fails(path):
        path.write_bytes(b"half")
        raise UserError("no")

    with pytest.raises(UserError):
        cache.get(content_key("x"), fails)
    assert not [p for p in (tmp_path / "c").rglob("*") if p.is_file()]
    assert content_key("ab", "c") != content_key("a", "bc")
