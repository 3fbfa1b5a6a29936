"""What a request brings -> raw values of modalities. A request never names a file of this machine.

Files come as parts of a form and are kept in a folder of their own while they are read; words and numbers come as
fields or JSON. A word is taken where the modality's values are words (`Modality.reads_words`); for all others a word
would be a path, and is refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, blame, nearest
from generalist.data.media import jsons
from generalist.data.media.codec import PICTURES
from generalist.data.media.pictures import open_picture
from generalist.tokenizers_mod.base.base import Modality

# fields of a form that are no input
SETTINGS = ("candidates", "task", "prompts", "side", "threshold", "most")


def modality_of(name: str, built: Mapping[str, Modality]) -> Modality:
    if name not in built:
        raise UserError(f"this model has no modality {name!r}; {nearest(name, built)}")
    return built[name]


def from_json(values: Any, built: Mapping[str, Modality]) -> dict[str, Any]:
    """{"text": "words", "table": {...}, "series": [...]} -> raw values. UserError for a word where a file belongs."""
    if not isinstance(values, Mapping) or not values:
        raise UserError('"inputs" is an object with an input by modality, such as {"text": "a red square"}')
    out = {}
    for name, value in values.items():
        modality = modality_of(str(name), built)
        if not modality.reads_words and holds_words(value):
            raise UserError(f"{name}: a word is no value of it; send a file as a part of a form, or numbers")
        out[str(name)] = np.asarray(value) if isinstance(value, list) and not holds_words(value) else value
    return out


def holds_words(value: Any) -> bool:
    """Whether there is a string in it, at any depth."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            return True
        left += list(one.values()) if isinstance(one, Mapping) else one if isinstance(one, list) else []
    return False


def from_field(name: str, text: str, built: Mapping[str, Modality]) -> Any:
    """A field of a form: words as they stand, everything else as JSON."""
    modality = modality_of(name, built)
    if text.lstrip()[:1] in ("[", "{"):
        try:
            value = jsons.loads(text, name)
        except UserError:
            if not modality.reads_words:
                raise
        else:
            return from_json({name: value}, built)[name]
    if not modality.reads_words:
        raise UserError(f"{name}: send a file, or numbers as JSON")
    return text


def from_file(
    name: str, filename: str, content: bytes, place: Callable[[], Path], built: Mapping[str, Modality]
) -> Any:
    """An uploaded file: a picture from its bytes, others from the folder `place` under a name of our own."""
    modality = modality_of(name, built)
    if not content:
        raise UserError(f"{name}: the file {filename!r} is empty")
    ending = "".join(c for c in Path(filename).suffix.lower() if c.isalnum())[:10]
    if ending in PICTURES:
        try:
            return open_picture(io.BytesIO(content), f"{name} {filename!r}")
        except Exception as error:  # Pillow's own, one for each format
            raise blame(error, f"{name} {filename!r}") from error
    path = place() / f"{name}.{ending}"
    path.write_bytes(content)
    return modality.from_command_line(str(path))


def candidates_of(given: list[str]) -> list[str] | None:
    """Names from repeated fields, or from one JSON list."""
    if len(given) == 1 and given[0].lstrip().startswith("["):
        loaded = jsons.loads(given[0], "candidates")
        if not all(isinstance(name, str) for name in loaded):
            raise UserError("candidates are names in words")
        return list(loaded)
    return given or None
