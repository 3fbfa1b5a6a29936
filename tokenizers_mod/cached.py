"""Decoded samples on disk by the hash of their content: a picture, sound or file is decoded once, not once an epoch.

`cache_reads(modality, cache)` puts the cache in front of a modality's `read`; only tensors are kept (as safetensors),
other values are read as before. Reading a short text costs less than opening a file, so texts are not cached.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from data.cache import SizedCache, content_key
from tokenizers_mod.base import Modality

LEAST = 256  # bytes below which a file is slower than decoding


class CachedRead:
    """A modality's `read` with a cache in front of it; pickles to loader workers."""

    def __init__(self, modality: Modality, cache: SizedCache) -> None:
        self.kind, self.settings, self.cache = type(modality), repr(modality), cache
        self.modality = modality
        self.hits = self.misses = 0

    def __call__(self, raw: Any) -> Any:
        content = encoded(raw)
        if content is None or len(content) < LEAST:
            return self.kind.read(self.modality, raw)
        key = content_key(f"{self.kind.__module__}:{self.kind.__qualname__} {self.settings}", content)
        place = self.cache.place(key)
        found = load(place) if place.is_file() else None
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(place)  # used just now: others are evicted first
            self.hits += 1
            return found
        self.misses += 1
        value = self.kind.read(self.modality, raw)
        if isinstance(value, Tensor):
            place.unlink(missing_ok=True)  # there, but not whole
            self.cache.get(key, lambda path: _save(value, path))
        return value


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


def encoded(raw: Any) -> bytes | None:
    """The bytes that a raw value is decoded from: an encoded picture or sound, or a file's; None for other values."""
    if isinstance(raw, bytes):
        return raw
    kept = getattr(raw, "encoded", None)
    if kept is not None:
        return kept
    if isinstance(raw, Path):
        try:
            return raw.read_bytes()
        except OSError:
            return None
    return None


def cache_reads(modality: Modality, cache: SizedCache) -> CachedRead:
    """Put `cache` in front of `modality.read`. The values are the same to the bit."""
    read = CachedRead(modality, cache)
    modality.read = read  # type: ignore[method-assign]
    return read
