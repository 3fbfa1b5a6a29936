"""Decoded samples and tokenised texts, kept in memory and, by the hash of their content, on disk: made once.

`cache_reads(modality, cache)` puts the cache in front of the modality's slow method (`Modality.slow`: `read`, or of a
text its splitting into sub-words). What a modality can write as one tensor (`Modality.keep`) is kept, as safetensors;
the key is the content with all of the modality's settings, so a changed tokenizer or size finds nothing of another's.

`remember(modality, memory)` keeps what the modality's steady methods (`Modality.steady`) give for samples that the
memory holds.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.data.files.cache import SizedCache, content_key
from generalist.data.stream.memory import Memory, Remembered
from generalist.tokenizers_mod.base.base import Modality


class CachedRead:
    """A modality's slow method with a cache in front of it; pickles to loader workers."""

    def __init__(self, modality: Modality, cache: SizedCache) -> None:
        self.kind, self.cache, self.modality = type(modality), cache, modality
        # hashed once: the settings of a text hold its whole vocabulary
        self.settings = content_key(f"{self.kind.__module__}:{self.kind.__qualname__} {modality!r}")
        self.hits = self.misses = 0

    def __call__(self, raw: Any) -> Any:
        content = self.modality.encoded(raw)
        if content is None or len(content) < self.modality.worth:
            return self._make(raw)
        key = content_key(self.settings, content)
        place = self.cache.place(key)
        found = load(place) if place.is_file() else None
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(place)  # used just now: others are evicted first
            self.hits += 1
            return self.modality.kept(found)
        self.misses += 1
        value = self._make(raw)
        tensor = self.modality.keep(value)
        if tensor is not None:
            place.unlink(missing_ok=True)  # there, but not whole
            self.cache.get(key, lambda path: _save(tensor, path))
        return value

    def _make(self, raw: Any) -> Any:
        return getattr(self.kind, self.kind.slow)(self.modality, raw)


def _save(value: Tensor, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"value": value.contiguous()}, path)


def load(path: Path) -> Tensor | None:
    """The tensor of a cached file; None when another process has evicted it or it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("value")
    except (OSError, SafetensorError, KeyError):
        return None


def cache_reads(modality: Modality, cache: SizedCache) -> CachedRead:
    """Put `cache` in front of the modality's slow method. The values are the same to the bit."""
    read = CachedRead(modality, cache)
    setattr(modality, modality.slow, read)
    return read


def remember(modality: Modality, memory: Memory) -> None:
    """Keep in `memory` what the steady methods give for values that it holds; comes after `cache_reads`."""
    order = type(modality).__mro__
    named = next(i for i, kind in enumerate(order) if "steady" in vars(kind))
    for name in modality.steady():
        made = next(i for i, kind in enumerate(order) if name in vars(kind))
        if name == "read" or made >= named:  # what a subclass put in its place may draw at random
            setattr(modality, name, Remembered(getattr(modality, name), memory))
