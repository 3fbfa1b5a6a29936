"""The samples of a training set, to look others up in: to the byte, by their words, by what they look or sound like.

Pictures are compared as `generalist.data.tools.alike` compares them; so are arrays of other kinds and sounds, as
pictures of their values and of their spectrogram.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.foreign import is_tensor
from generalist.data.media.kinds import MEDIA, ending
from generalist.data.media.sounds import mixed, read_sound
from generalist.data.stream.source import Record, Records
from generalist.data.tools import alike
from generalist.data.tools.check import marks

FRAMES = 32
SHORT = 1024  # values up to which a row of numbers is no sound: windows of one series have spectra alike


def picture_of(value: Any) -> np.ndarray | None:
    """Any picture, array of numbers or sound as Float[32 32]; None for another value."""
    from PIL import Image

    if isinstance(value, str) and Path(value).suffix and Path(value).is_file():
        value = Path(value)
    if isinstance(value, Path) and ending(value) in MEDIA["sounds"]:
        value = mixed(read_sound(value, whole=False)[0])
    if isinstance(value, dict):
        value = value.get("array")
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif" or value.size < 64:
        return alike.grey(value)
    array = np.nan_to_num(value.astype(np.float32))
    if array.ndim == 1:
        if len(array) < SHORT:
            return None
        array = spectrogram(array)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or min(array.shape[:2]) < alike.LOW:  # points and rows of numbers are no pictures
        return None
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4):
        return None
    low, high = (0.0, 255.0) if value.dtype == np.uint8 else (float(array.min()), float(array.max()))
    scaled = ((array - low) * (255.0 / max(high - low, 1e-12))).round().astype(np.uint8)
    mode = scaled[..., 0] if scaled.ndim == 3 and scaled.shape[-1] == 1 else scaled
    return alike.grey(Image.fromarray(mode))


def spectrogram(wave: np.ndarray) -> np.ndarray:
    """Log magnitudes of FRAMES stretches of a sound: [FRAMES, frequencies], whatever its length and loudness."""
    step = max(16, -(-len(wave) // FRAMES))
    frames = np.pad(wave, (0, step * FRAMES - len(wave))).reshape(FRAMES, step)
    power = np.abs(np.fft.rfft(frames * np.hanning(step), axis=1))
    return np.log(power + 1e-3 * power.max() + 1e-12).astype(np.float32)


class Known:
    """fields: those that are compared, all where None."""

    def __init__(self, records: Records, fields: set[str] | None = None) -> None:
        self.fields = fields
        self.exact: dict[str, str] = {}
        self.looks = alike.Looks()
        for i in range(len(records)):
            whole = records[i]
            record, name = self._seen(whole), str(whole.get("id", i))
            for _, mark in marks(record):
                self.exact.setdefault(mark, name)
            self.looks.add(name, shown(record))

    def _seen(self, record: Record) -> Record:
        return {k: v for k, v in record.items() if self.fields is None or k in self.fields}

    def find(self, records: Records) -> list[tuple[int, str, str]]:
        """(number, "exact" or "alike", the training sample) of every record that is known."""
        found: dict[int, tuple[str, str]] = {}
        unsure = alike.Looks()
        for i in range(len(records)):
            record = self._seen(records[i])
            exact = next((self.exact[mark] for _, mark in marks(record) if mark in self.exact), None)
            said = exact or self.looks.said(record)
            if said is not None:
                found[i] = ("alike" if exact is None else "exact", said)
            else:
                unsure.add(str(i), shown(record))
        for number, name in unsure.pairs(self.looks):
            found.setdefault(int(number), ("alike", name))
        return [(i, *found[i]) for i in sorted(found)]


def shown(record: Record) -> Record:
    """The record with everything that can be seen or heard as a picture of 8-bit greys."""
    out = {}
    for name, value in record.items():
        pixels = None if name == "id" or (isinstance(value, str) and not Path(value).suffix) else picture_of(value)
        out[name] = value if pixels is None else pixels.round().astype(np.uint8)
    return out
