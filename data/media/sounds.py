"""A sound's file or bytes -> its samples, whole or refused: cut off, empty, broken, not finite.

Floats beyond 4 are integers that were saved as floats and are brought to -1..1. Channels are mixed by their mean; where
they cancel each other (a balanced line recorded as stereo: right = -left), the louder one is the sound.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.base.files import check_regular
from generalist.data.base.limits import MB, limits, over

PIECE = 1 << 20  # frames decoded at once
SHORTEST = 0.025  # seconds: one frame of a spectrogram
LOUDEST = 4.0  # of floats; beyond, they are integers
FULL = (2.0**15, 2.0**23, 2.0**31)  # full scale of 16, 24 and 32 bits
CANCELLED = 1e-3  # of the channels' power that is left in their mean, below which they cancel each other
LAST_PAGE = 4  # the flag of an Ogg page after which none follows
UNKNOWN = 0x7FFF0000  # bytes of samples that a writer to a pipe says, who does not know how many will come


def read_sound(raw: Any, whole: bool = True) -> tuple[np.ndarray, int]:
    """Path, its text or bytes -> (float32 [t] or [t, channels], Hz). UserError: unreadable, cut off, too long.

    It is decoded a piece at a time. Of a recording that is longer than `sound_mb` the channels are mixed; one that
    still is, is refused, or with whole=False (where stretches of it are wanted) its middle is read.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise UserError(f"audio files need soundfile ({error}); pip install soundfile") from error
    what = "audio bytes" if isinstance(raw, bytes) else f"audio {raw}"
    if not isinstance(raw, bytes):
        check_regular(raw, "audio")
        raw = Path(raw).read_bytes()
    if not raw:
        raise UserError(f"{what}: the file is empty; remove it or fetch it anew")
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            rate = file.samplerate
            array, said = _decoded(file, what, whole)
    except UserError:
        raise
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        reason = str(error).rpartition(": ")[2]  # without the object that it was read from
        raise UserError(f"{what}: not a readable sound file ({reason}); convert it to wav or flac") from error
    missing = bytes_missing(raw)
    if missing:
        raise UserError(f"{what}: cut off, {missing} bytes of samples or more are missing; fetch it anew")
    if len(array) < said:
        raise UserError(f"{what}: cut off, {len(array)} of {said} samples can be read; fetch it anew")
    peak = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    if LOUDEST < peak <= FULL[-1]:
        array = array / next(full for full in FULL if peak <= full)
    return array.astype(np.float32), int(rate)


def _decoded(file: Any, what: str, whole: bool) -> tuple[np.ndarray, int]:
    """The samples of an open file, and how many there should be."""
    most = limits().sound_mb * MB // 4
    if not limits().low_hz <= file.samplerate <= limits().high_hz:
        low, high = limits().low_hz, limits().high_hz
        raise UserError(f"{what}: sampling rate {file.samplerate}; expected a number of Hz, {low:,g} to {high:,g}")
    if file.frames * file.channels <= most:
        return file.read(dtype="float32"), file.frames
    if file.frames > most and (whole or not file.seekable()):
        raise over(what, "sound_mb", f"{file.frames:,} samples are {file.frames * 4 / MB:,.0f} MB")
    file.seek(max(0, (file.frames - most) // 2))
    found: list[np.ndarray] = []
    length = 0
    while length < most and len(piece := file.read(min(PIECE, most - length), dtype="float32", always_2d=True)):
        found.append(mixed(piece))
        length += len(piece)
    return np.concatenate(found) if found else np.zeros(0, np.float32), min(most, file.frames)


def bytes_missing(raw: bytes) -> int:
    """Bytes of samples that the header of a WAV, AIFF or AU says and that are not there; 0 for other kinds of files.

    Of an Ogg file that does not end with its last page, as its pages say, at least one.
    """
    if raw[:4] == b"OggS":
        return int(not raw[raw.rfind(b"OggS") + 5 :][:1] or not raw[raw.rfind(b"OggS") + 5] & LAST_PAGE)
    if raw[:4] == b".snd":
        start, size = (int.from_bytes(raw[at : at + 4], "big") for at in (4, 8))
        return max(0, start + size - len(raw)) if size < UNKNOWN else 0
    kinds = {(b"RIFF", b"WAVE"): b"data", (b"FORM", b"AIFF"): b"SSND"}
    wanted, at = kinds.get((raw[:4], raw[8:12])), 12
    while wanted and at + 8 <= len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "little" if wanted == b"data" else "big")
        if raw[at : at + 4] == wanted:
            return max(0, size - (len(raw) - at - 8)) if size < UNKNOWN else 0
        at += 8 + size + size % 2
    return 0


def mixed(array: np.ndarray) -> np.ndarray:
    """Samples [t] or [t, channels] -> one channel [t]; see the module."""
    if array.ndim == 1:
        return array
    return array[:, int(np.square(array).sum(0).argmax())] if cancels(array) else array.mean(1)


def cancels(array: np.ndarray) -> bool:
    """Whether the mean of the channels of [t, channels] has lost nearly all of their power."""
    if array.ndim < 2 or array.shape[1] < 2:
        return False
    power = float(np.square(array, dtype=np.float64).mean())
    return float(np.square(array.mean(1), dtype=np.float64).mean()) < CANCELLED * power


def heard(array: np.ndarray, rate: float) -> list[str]:
    """What is odd of samples [t] or [t, channels] that can be read. UserError for what no model can take."""
    if array.size == 0:
        raise UserError("no samples; remove the sound")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite")
    if rate > 0 and len(array) < SHORTEST * rate:
        raise UserError(f"{len(array)} samples at {rate:g} Hz are less than one frame of {SHORTEST * 1000:g} ms")
    if not np.any(array):
        return ["silent sound"]
    return ["channels of opposite phase"] if cancels(array) else []
