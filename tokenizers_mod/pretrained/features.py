"""What a frozen encoder made of a sample, kept on disk: every sample goes through it once, whoever asks again.

A file a sample in one bounded folder (`generalist.data.files.cache`), shared by runs and processes; the least recently
used go first. The key is the sample's content, the hash of the encoder's weights and whatever else changes the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from importlib.metadata import version

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from generalist.data.files.cache import SizedCache, default_folder
from generalist.tokenizers_mod.base.cached import load

FOLDER = "features"
KEY = 2  # int64 numbers of a key


class Features:
    """gigabytes: limit of the folder, in 1e9 bytes. about: all that a feature depends on besides the sample."""

    def __init__(self, gigabytes: float, *about: str) -> None:
        self.cache = SizedCache(default_folder() / FOLDER, int(gigabytes * 1e9), small=True)
        versions = [f"{name} {version(name)}" for name in ("torch", "timm", "transformers")]
        self.about = "\n".join([*about, *versions]).encode()
        self.hits = self.misses = 0

    def key(self, content: bytes) -> str:
        digest = hashlib.blake2b(self.about, digest_size=8 * KEY)
        digest.update(content)
        return digest.hexdigest()

    def get(self, key: str, numbers: int | None = None) -> Tensor | None:
        """The feature, flat, as it was put; None where it is not there, not whole or not of so many numbers."""
        place = self.cache.place(key)
        found = load(place) if place.is_file() else None
        if found is None or (numbers is not None and found.numel() != numbers):
            self.misses += 1
            return None
        with contextlib.suppress(OSError):
            os.utime(place)  # used just now: others are evicted first
        self.hits += 1
        return found

    def put(self, key: str, feature: Tensor) -> None:
        self.cache.place(key).unlink(missing_ok=True)  # there, but not whole
        self.cache.get(key, lambda path: save_file({"value": feature.detach().float().cpu().contiguous()}, path))


def as_numbers(key: str) -> Tensor:
    """A key as Int[KEY], to travel with a batch."""
    return torch.from_numpy(np.frombuffer(bytes.fromhex(key), dtype=np.int64).copy())


def as_key(numbers: Tensor) -> str:
    return numbers.cpu().numpy().astype(np.int64).tobytes().hex()


def numbers(shapes: list[list[int]]) -> int:
    """How many there are in maps of these shapes, [h, w, C] each."""
    return sum(h * w * c for h, w, c in shapes)
