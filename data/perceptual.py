"""What a sample looks and sounds like, so that copies which were resized, recoded or brightened are found too.

A picture (or the spectrogram of a sound) becomes a 32 x 32 grey thumbnail: its 8 x 8 lowest frequencies, the numbers
that the perceptual hash of Zauner (2010, "pHash") takes the signs of, find candidates, and the correlation of the
thumbnails decides. (The signs alone were measured to miss recoded copies of smooth pictures, whose higher frequencies
are near zero and change their sign.) A text becomes its words in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import content_key
from data.check import LONG, marks
from data.errors import UserError
from data.source import Record, Records

SIDE = 32
LOW = 8
NEAR = 0.97  # cosine of the low frequencies from which the thumbnails are compared
ALIKE = 0.985  # correlation of two thumbnails from which they show the same
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # grey as PIL makes it
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
SOUNDS = {".wav", ".flac", ".ogg", ".mp3"}


def grey(value: Any) -> np.ndarray | None:
    """A picture (PIL, array [H W], [H W C], [C H W], a path) or a sound as Float[h w]; None for another value."""
    if isinstance(value, str) and Path(value).suffix.lower() in PICTURES | SOUNDS and Path(value).is_file():
        value = Path(value)
    if isinstance(value, Path):
        ending = value.suffix.lower()
        try:
            if ending in PICTURES:
                from PIL import Image

                with Image.open(value) as opened:
                    return np.asarray(opened.convert("L"), dtype=np.float32)
            if ending in SOUNDS:
                import soundfile

                return spectrogram(soundfile.read(str(value), dtype="float32", always_2d=True)[0].mean(1))
        except (OSError, ValueError, SyntaxError, RuntimeError) as error:
            raise UserError(f"{value} cannot be read ({error})") from error
        return None
    if hasattr(value, "convert") and hasattr(value, "tobytes"):
        return np.asarray(value.convert("L"), dtype=np.float32)
    if isinstance(value, dict):
        return grey(value["array"]) if "array" in value else None
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif" or value.size < 64:
        return None
    array = np.nan_to_num(value.astype(np.float32))
    if array.ndim == 1:
        return spectrogram(array)
    if array.ndim == 3:
        if array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
            array = np.moveaxis(array, 0, -1)
        return array[..., :3] @ LUMA if array.shape[-1] in (3, 4) else array.mean(-1)
    return array if array.ndim == 2 else None


def spectrogram(wave: np.ndarray) -> np.ndarray:
    """Log magnitudes of SIDE stretches of a sound: [SIDE, frequencies], whatever its length and loudness."""
    step = max(16, -(-len(wave) // SIDE))
    frames = np.pad(wave, (0, step * SIDE - len(wave)) if len(wave) < step * SIDE else (0, 0))[: step * SIDE]
    power = np.abs(np.fft.rfft(frames.reshape(SIDE, step) * np.hanning(step), axis=1))
    return np.log(power + 1e-3 * power.max() + 1e-12).astype(np.float32)


def thumbnail(value: np.ndarray) -> np.ndarray:
    """Float[h w] -> Float[SIDE SIDE] of mean 0 and length 1; zeros where it is all one colour."""
    from PIL import Image

    small = np.asarray(Image.fromarray(value.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    small = small - small.mean()
    length = float(np.sqrt((small**2).sum()))
    flat = length <= 1e-4 * max(1.0, float(np.abs(value).max()))
    return np.zeros((SIDE, SIDE), np.float32) if flat else (small / length).astype(np.float32)


def low_frequencies(thumb: np.ndarray) -> np.ndarray:
    """The 8 x 8 lowest cosines of a thumbnail as a unit vector Float[64]."""
    from scipy.fft import dctn

    low = dctn(thumb, norm="ortho")[:LOW, :LOW].ravel()
    return (low / max(float(np.linalg.norm(low)), 1e-12)).astype(np.float32)


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def looks(record: Record) -> Iterator[tuple[str, str | np.ndarray]]:
    """(field, key of its words or its thumbnail) of every field that identifies a sample."""
    for name, value in record.items():
        if name == "id":
            continue
        if isinstance(value, str) and Path(value).suffix.lower() not in PICTURES | SOUNDS:
            if len(said := words(value)) >= LONG:
                yield name, content_key(said.encode())
            continue
        seen = grey(value)
        if seen is not None and (thumb := thumbnail(seen)).any():
            yield name, thumb


class Known:
    """The samples of a training set, to look others up in: exactly, by their words, and by their looks."""

    def __init__(self, records: Records, fields: set[str] | None = None) -> None:
        """fields: those that are compared, all where None."""
        self.fields = fields
        self.exact: dict[str, str] = {}
        self.names: list[str] = []
        thumbs, lows = [], []
        for i in range(len(records)):
            record = self._seen(records[i])
            name = str(records[i].get("id", i))
            for _, mark in marks(record):
                self.exact.setdefault(mark, name)
            for _, look in looks(record):
                if isinstance(look, str):
                    self.exact.setdefault(look, name)
                else:
                    thumbs.append(np.round(look.ravel() * 127 / np.abs(look).max()).astype(np.int8))
                    lows.append(low_frequencies(look))
                    self.names.append(name)
        self.thumbs = np.array(thumbs, dtype=np.int8).reshape(len(thumbs), SIDE * SIDE)
        self.lows = np.array(lows, dtype=np.float32).reshape(len(lows), LOW * LOW)

    def _seen(self, record: Record) -> Record:
        return record if self.fields is None else {k: v for k, v in record.items() if k in self.fields}

    def find(self, record: Record) -> tuple[str, str] | None:
        """(how, the training sample's name) of a sample that is known: "exact" or "alike"."""
        record = self._seen(record)
        for _, mark in marks(record):
            if mark in self.exact:
                return "exact", self.exact[mark]
        for _, look in looks(record):
            if isinstance(look, str):
                if look in self.exact:
                    return "alike", self.exact[look]
                continue
            near = np.flatnonzero(self.lows @ low_frequencies(look) >= NEAR)
            if len(near):
                theirs = self.thumbs[near].astype(np.float32)
                cosine = theirs @ look.ravel() / np.linalg.norm(theirs, axis=1)
                if (best := int(cosine.argmax())) >= 0 and cosine[best] >= ALIKE:
                    return "alike", self.names[near[best]]
        return None
