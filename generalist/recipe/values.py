"""Values of the command line: text as a value of the type that a key is annotated with."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

from generalist.data.base.errors import UserError


def parse(text: str, kind: Any, key: str) -> Any:
    """Text -> a value of the annotated type. UserError names the key and the type it takes."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [k for k in typing.get_args(kind) if k is not type(None)]
        options.sort(key=lambda k: k is str)  # which takes whatever the others do not
        if text.lower() in ("none", "null") and len(options) < len(typing.get_args(kind)):
            return None
        for option in options:
            try:
                return parse(text, option, key)
            except UserError:
                continue
        raise UserError(f"{key}={text!r}: this key takes {' or '.join(str(o) for o in options)}")
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if kind is int:
            number = float(text)
            if number != int(number):
                raise ValueError
            return int(number)
        if kind is float:
            number = float(text)
            if number != number:
                raise ValueError
            return number
        if kind is str:
            return text
        if origin in (list, tuple, dict) or kind in (list, tuple, dict):
            value = json.loads(text)
            base = origin or kind
            if not isinstance(value, dict if base is dict else list):
                raise ValueError
            if base is dict:
                return value
            arguments = [a for a in typing.get_args(kind) if a is not Ellipsis]
            if base is tuple and len(arguments) > 1 and len(arguments) != len(value):
                raise ValueError
            return base(
                _member(v, arguments[min(i, len(arguments) - 1)] if arguments else Any) for i, v in enumerate(value)
            )
    except (ValueError, KeyError, OverflowError, json.JSONDecodeError) as error:
        name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
        raise UserError(f"{key}={text!r}: this key takes {name}") from error
    raise UserError(f"{key} cannot be set from the command line; write a recipe file that changes it")


def _member(value: Any, kind: Any) -> Any:
    """A JSON value as a member of a list of `kind`. ValueError when it is another kind."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise ValueError
    return value
