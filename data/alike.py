"""Samples that are nearly the same: a picture saved again, resized or brightened, a text with other case or marks.

A picture's perceptual hash is the sign pattern of its lowest 8 x 8 frequencies but the mean (pHash, Zauner 2010).
Hashes that agree in one of four parts are compared; those of at most DISTANCE different bits are confirmed by the
correlation of the two pictures at 16 x 16, so that drawings of one kind (digits) do not count as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.codec import HEADS, PICTURES, picture
from data.errors import UserError
from data.pictures import bounded, open_picture

SIDE, LOW, THUMB = 32, 8, 16
DISTANCE = 6  # bits; up to 3 are found for certain, since one of the four parts is then equal
CORRELATION = 0.98
LEAST = 24  # letters of a text below which equal words say little
_n = np.arange(SIDE)
COSINES = np.cos(np.pi * (2 * _n[None, :] + 1) * np.arange(LOW)[:, None] / (2 * SIDE))  # DCT-II: [8, 32]


def grey(value: Any) -> np.ndarray | None:
    """A picture (PIL image, its file or bytes, uint8 array) as Float[32 32]; None for what is no picture."""
    from PIL import Image

    if isinstance(value, bytes):
        if next((ending for head, ending in HEADS.items() if value.startswith(head)), "") not in PICTURES:
            return None
        try:
            return grey(picture(value))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{len(value)} bytes that are no whole picture ({error})") from error
    if isinstance(value, Path):
        if value.suffix.lower().lstrip(".") not in PICTURES:
            return None
        try:
            with open_picture(value) as opened:
                return grey(opened)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{value} is no whole picture ({error})") from error
    if isinstance(value, np.ndarray):
        shaped = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4))
        if value.dtype != np.uint8 or not shaped or min(value.shape[:2]) < LOW:
            return None
        value = Image.fromarray(value)
    if not hasattr(value, "convert"):
        return None
    bounded(value, whole=False)
    return np.asarray(value.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)


def perceptual(pixels: np.ndarray) -> tuple[int, np.ndarray] | None:
    """(64-bit hash, int8 [256] thumbnail) of Float[32 32]; None for a picture of one shade, which is like any other."""
    if pixels.std() < 1.0:
        return None
    low = (COSINES @ pixels @ COSINES.T).ravel()
    bits = low > np.median(low[1:])
    bits[0] = False  # the mean: brightness
    code = int.from_bytes(np.packbits(bits).tobytes(), "big")
    small = pixels.reshape(THUMB, SIDE // THUMB, THUMB, SIDE // THUMB).mean((1, 3)).ravel()
    small = (small - small.mean()) / max(small.std(), 1e-9)
    return code, (small * 32).clip(-127, 127).astype(np.int8)


def plain_words(text: str) -> str:
    """A text's letters and digits in lower case, single spaces between the words."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


class Looks:
    """What the samples of a split look like, and which look alike."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.codes: list[int] = []
        self.thumbs: list[np.ndarray] = []
        self.texts: dict[str, str] = {}  # words -> the first sample that has them

    def add(self, name: str, record: dict[str, Any]) -> str | None:
        """Take a sample in; an earlier one with the same words in a long text, if there is one."""
        before = None
        for key, value in record.items():
            if isinstance(value, str) and key != "id" and len(value) >= LEAST:
                before = self.texts.setdefault(f"{key} {plain_words(value)}", name)
                continue
            pixels = grey(value)
            found = None if pixels is None else perceptual(pixels)
            if found is not None:
                self.names.append(name)
                self.codes.append(found[0])
                self.thumbs.append(found[1])
        return before if before != name else None

    def said(self, record: dict[str, Any]) -> str | None:
        """The sample of this split that has the same words in a long text as another split's record."""
        texts = [(k, v) for k, v in record.items() if isinstance(v, str) and k != "id" and len(v) >= LEAST]
        return next((f for k, v in texts if (f := self.texts.get(f"{k} {plain_words(v)}")) is not None), None)

    def pairs(self, other: Looks | None = None) -> Iterator[tuple[str, str]]:
        """(sample, the first earlier sample that it looks like), or the first such one of another split."""
        if not self.codes or (other is not None and not other.codes):
            return
        codes, thumbs = np.array(self.codes, dtype=np.uint64), np.stack(self.thumbs)
        theirs = self if other is None else other
        their_codes = codes if other is None else np.array(theirs.codes, dtype=np.uint64)
        their_thumbs = thumbs if other is None else np.stack(theirs.thumbs)
        buckets = [_buckets(their_codes, part) for part in range(4)]
        for i, code in enumerate(codes):
            near = np.unique(np.concatenate([b.get(_part(int(code), p), _NONE) for p, b in enumerate(buckets)]))
            if other is None:
                near = near[near < i]
            near = near[np.bitwise_count(their_codes[near] ^ code) <= DISTANCE]
            if len(near) and (likely := near[_correlation(thumbs[i], their_thumbs[near]) >= CORRELATION]).size:
                first = theirs.names[int(likely[0])]
                if other is not None or first != self.names[i]:
                    yield self.names[i], first


_NONE = np.zeros(0, dtype=np.int64)


def _part(code: int, part: int) -> int:
    return code >> (16 * part) & 0xFFFF


def _buckets(codes: np.ndarray, part: int) -> dict[int, np.ndarray]:
    held: dict[int, list[int]] = defaultdict(list)
    for i, code in enumerate(codes.tolist()):
        held[_part(code, part)].append(i)
    return {key: np.array(numbers) for key, numbers in held.items()}


def _correlation(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """int8 [256] and [n, 256], both of mean zero -> [n]."""
    a, b = one.astype(np.float32), many.astype(np.float32)
    return b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1) + 1e-9)
