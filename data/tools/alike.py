"""Samples that are nearly the same: a picture saved again, resized or brightened, a text with other case or marks.

A picture is described by the lowest frequencies (DCT-II) of its greys at 16 x 16, each times its frequency, so that
what all pictures have in common (light above, dark below) counts no more than what is its own. Two are alike where the
descriptions agree at two scales, the frequencies below 8 and those below 12, or where one is nearer than any other by
far. Every pair is compared, which costs 0.1 Gflop a million pairs.

Of 800 pictures of CIFAR-10, of icons, of Fashion-MNIST and of chest X-rays each and 148 of COCO, saved again at .5 to 3
times their size, as JPEG of quality 40 to 75, both, brighter or grey, at least 98.9 % are found. Of different pictures
1, 7, 1, 0 and 0 are called alike (variants of one icon mostly). Of digits of 8 x 8 pixels JPEG leaves too little: 18 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import is_picture
from generalist.data.media.codec import HEADS, PICTURES, picture
from generalist.data.media.pictures import open_picture
from generalist.data.media.pixels import pixels_of

SIDE, LOW = 16, 8  # of the greys, and the smallest side of an array that is a picture
COARSE, FINE = 8, 12  # frequencies below these are compared
SURE = (0.99, 0.97)  # agreement of the coarse and of the fine frequencies
LIKELY, FAR, OTHERS = 0.9, 0.2, 16  # agreement where the next of at least so many others is five times as far away
BLOCK = 1024
LEAST = 24  # letters of a text below which equal words say little
_n = np.arange(SIDE)
COSINES = np.cos(np.pi * (2 * _n[None, :] + 1) * _n[:, None] / (2 * SIDE))  # DCT-II: [16, 16]
COSINES[0] /= np.sqrt(2)
_radius = np.hypot(*np.meshgrid(_n, _n, indexing="ij")).ravel()
_order = np.argsort(_radius, kind="stable")
KEPT = _order[(_radius[_order] > 0) & (_radius[_order] < FINE)]  # the mean, which is brightness, is left out
FIRST = int((_radius[KEPT] < COARSE).sum())


def grey(value: Any) -> np.ndarray | None:
    """A picture (PIL image, its file or bytes, uint8 array) as greys 0..255, Float[16 16]; None for no picture."""
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
    if not is_picture(value):
        return None
    pixels = pixels_of(value, grey=True, whole=False)
    pixels = pixels.astype(np.float32) * (1 if pixels.dtype == np.uint8 else 255)
    # bicubic with a wide support: the same greys come of the picture at any size
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def described(pixels: np.ndarray) -> np.ndarray | None:
    """Float[16 16] -> float32 [frequencies], the coarse ones first; None for one shade, which is like any other."""
    if pixels.std() < 1.0:
        return None
    return ((COSINES @ pixels @ COSINES.T).ravel()[KEPT] * _radius[KEPT]).astype(np.float32)


def plain_words(text: str) -> str:
    """A text's letters and digits in lower case, single spaces between the words."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


class Looks:
    """What the samples of a split look like, and which look alike."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seen: list[np.ndarray] = []
        self.texts: dict[str, str] = {}  # words -> the first sample that has them

    def add(self, name: str, record: dict[str, Any]) -> str | None:
        """Take a sample in; an earlier one with the same words in a long text, if there is one."""
        before = None
        for key, value in record.items():
            if isinstance(value, str) and key != "id" and len(value) >= LEAST:
                before = self.texts.setdefault(f"{key} {plain_words(value)}", name)
                continue
            pixels = grey(value)
            found = None if pixels is None else described(pixels)
            if found is not None:
                self.names.append(name)
                self.seen.append(found)
        return before if before != name else None

    def said(self, record: dict[str, Any]) -> str | None:
        """The sample of this split that has the same words in a long text as another split's record."""
        texts = [(k, v) for k, v in record.items() if isinstance(v, str) and k != "id" and len(v) >= LEAST]
        return next((f for k, v in texts if (f := self.texts.get(f"{k} {plain_words(v)}")) is not None), None)

    def pairs(self, other: Looks | None = None) -> Iterator[tuple[str, str]]:
        """(sample, the first earlier sample that it looks like), or the first such one of another split."""
        theirs = self if other is None else other
        if not self.seen or not theirs.seen:
            return
        coarse, fine = _units(self.seen)
        their_coarse, their_fine = (coarse, fine) if other is None else _units(theirs.seen)
        for start in range(0, len(self.seen), BLOCK):
            agree = coarse[start : start + BLOCK] @ their_coarse.T
            for row, i in zip(agree, range(start, start + BLOCK), strict=False):
                row = row if other is not None else row[:i]
                j = _like(row, fine[i], their_fine)
                if j is not None and (other is not None or theirs.names[j] != self.names[i]):
                    yield self.names[i], theirs.names[j]


def _units(seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The descriptions of length 1: their coarse frequencies [n, FIRST], and all."""
    fine = np.stack(seen)
    coarse = fine[:, :FIRST]
    lengths = (np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9) for v in (coarse, fine))
    return coarse / next(lengths), fine / next(lengths)


def _like(agree: np.ndarray, own: np.ndarray, fine: np.ndarray) -> int | None:
    """The first of the samples that one is like. agree: its coarse agreement with each; own, fine: all frequencies."""
    if not len(agree):
        return None
    best = int(agree.argmax())
    if agree[best] < LIKELY:
        return None
    near = np.flatnonzero(agree >= SURE[0])
    sure = near[fine[near] @ own >= SURE[1]]
    if len(sure):
        return int(sure[0])
    if len(agree) <= OTHERS:
        return None
    next_best = float(np.partition(agree, -2)[-2])
    return best if 1 - agree[best] < FAR * (1 - next_best) else None
