"""What a modality shows of itself: small settings, raw values that it takes and raw values that it refuses.

`Modality.examples()` gives them; the tests of all modalities and `generalist check modality` try them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class File:
    """A raw value that is a file: its name and what is in it."""

    name: str
    content: bytes


class Examples(NamedTuple):
    """(settings, good, bad) are what it takes; a plain tuple of these three does as well.

    settings: of a modality as small as it gets, quick on a CPU.
    good: raw values of several sizes; the first is whole and has two tokens or more where there can be two.
    bad: a raw value, and what is said of it (a regular expression).
    least: as little as there can be, and its number of real tokens.
    counted: settings, a raw value, and the sizes by which `Modality.count` counts its tokens.
    elsewhere: beginnings of names of parameters that only a loss of their own trains.
    """

    settings: Mapping[str, Any] = MappingProxyType({})
    good: Sequence[Any] = ()
    bad: Sequence[tuple[Any, str]] = ()
    least: Sequence[tuple[Any, int]] = ()
    counted: Sequence[tuple[dict[str, Any], Any, dict[str, int]]] = ()
    elsewhere: Sequence[str] = ()


def raw_at(raw: Any, folder: Path) -> Any:
    """A raw value of the examples as a person has it in hand: files are written into `folder`, their path is given."""
    if not isinstance(raw, File):
        return raw
    path = folder / raw.name
    path.write_bytes(raw.content)
    return str(path)


# --- files that are not whole ---


def png_of(width: int, height: int) -> File:
    """A picture file that says it has this size, and holds one row of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    return File(f"bomb{width}.png", b"\x89PNG\r\n\x1a\n" + rows)


def cut_png() -> File:
    from PIL import Image

    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).save(whole, "PNG")
    return _cut("cut.png", whole.getvalue())


def cut_npy() -> File:
    whole = io.BytesIO()
    np.save(whole, np.random.default_rng(0).normal(size=(40, 3)))
    return _cut("cut.npy", whole.getvalue())


def cut_wav() -> File:
    import soundfile

    whole = io.BytesIO()
    soundfile.write(whole, np.random.default_rng(0).normal(size=4000), 8000, format="WAV")
    return File("cut.wav", whole.getvalue()[:20])


def _cut(name: str, content: bytes) -> File:
    return File(name, content[: len(content) // 2])
