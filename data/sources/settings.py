"""Settings given as text (`label=income`, `val=0.2`) for the fields of a source's dataclass."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import fields
from typing import Any

from generalist.data.base.errors import UserError, nearest


def make(kind: Any, settings: dict[str, Any]) -> Any:
    """An instance of the dataclass `kind`. UserError names the nearest valid setting."""
    hints = typing.get_type_hints(kind)
    valid = [f.name for f in fields(kind)]
    values = {}
    for name, value in settings.items():
        if name not in valid:
            raise UserError(f"{kind.__name__} has no setting {name!r}; {nearest(name, valid)}")
        values[name] = convert(value, hints[name], name) if isinstance(value, str) else value
    return kind(**values)


def convert(text: str, kind: Any, name: str) -> Any:
    """Text -> a value of the annotated type: str as it is, bool, int and float by name, the rest as JSON."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if str in options or Any in options:
        return text
    try:
        if bool in options:
            return {"true": True, "false": False}[text.lower()]
        if int in options or float in options:
            return int(text) if int in options else float(text)
        return json.loads(text)
    except (KeyError, ValueError) as error:
        raise UserError(f"{name}={text!r}: this setting takes {getattr(kind, '__name__', kind)}") from error


def from_words(words: list[str]) -> dict[str, str]:
    """What --set was given: ["label=income"] -> {"label": "income"}."""
    out = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise UserError(f"--set {word!r} is not KEY=VALUE (example: --set label=income)")
        out[key] = value
    return out
