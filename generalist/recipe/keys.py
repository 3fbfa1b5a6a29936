"""Keys of the command line: `optimizer.lr=1e-3` changes a tree of dataclasses by dotted path."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.recipe.encoder import Also


def override(recipe: Any, *assignments: str) -> None:
    """Apply every "a.b.c=value", then check what they touched: keys that need each other come in any order.

    Unknown keys and wrong types raise UserError with the nearest valid key.
    """
    touched = [_set(recipe, assignment) for assignment in assignments]
    for target, assignment in touched:
        if hasattr(target, "__post_init__"):
            try:
                target.__post_init__()
            except UserError:
                raise
            except (TypeError, ValueError, ArithmeticError) as error:
                raise UserError(f"{assignment} cannot work ({error})") from error


def _set(recipe: Any, assignment: str) -> tuple[Any, str]:
    """Set one key; the object that holds it, and the assignment."""
    path, sign, text = assignment.partition("=")
    if not sign or not path:
        raise UserError(f"{assignment!r} is not key=value (example: optimizer.lr=1e-3)")
    *parents, last = path.split(".")
    target, walked = recipe, ""
    for part in parents:
        target = _child(target, part, walked)
        walked = f"{walked}{part}."
    _assign(target, last, text, walked)
    return target, assignment


def _keys(target: Any) -> dict[str, Any]:
    if isinstance(target, list) and target and hasattr(target[0], "name"):
        return {item.name: item for item in target}
    if isinstance(target, dict):
        return target
    if is_dataclass(target):
        return {name: getattr(target, name) for name in [*(f.name for f in fields(target)), *_also(type(target))]}
    return {}


def _also(kind: Any) -> dict[str, Any]:
    """What else of a dataclass can be set: other names of its fields, and properties."""
    found = {name: value for part in kind.__mro__ for name, value in vars(part).items()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, Also) or (isinstance(value, property) and value.fset is not None)
    }


def _kind(target: Any, key: str) -> Any:
    """The annotated type of a key."""
    other = _also(type(target)).get(key)
    if isinstance(other, Also):
        parent, _, name = other.path.rpartition(".")
        return _kind(attrgetter(parent)(target) if parent else target, name)
    if isinstance(other, property):
        return typing.get_type_hints(other.fget)["return"]
    return typing.get_type_hints(type(target))[key]


def _child(target: Any, part: str, walked: str) -> Any:
    keys = _keys(target)
    if part not in keys:
        raise UserError(f"unknown key {walked + part!r}; {_suggest(walked, part, keys)}")
    return keys[part]


def _suggest(walked: str, part: str, keys: dict[str, Any]) -> str:
    return nearest(walked + part, [walked + k for k in keys])


def _assign(target: Any, key: str, text: str, walked: str) -> None:
    keys = _keys(target)
    if key not in keys:
        raise UserError(f"unknown key {walked + key!r}; {_suggest(walked, key, keys)}")
    current, name = keys[key], walked + key
    members = current.values() if isinstance(current, dict) else current if isinstance(current, list) else [current]
    if any(is_dataclass(member) for member in members):
        inner = ", ".join(f"{name}.{k}" for k in list(_keys(current))[:6])
        raise UserError(f"{name!r} is a group of keys, not a value; set one of {inner}")
    if is_dataclass(target):
        setattr(target, key, parse(text, _kind(target, key), name))
    else:
        target[key] = parse(text, type(current), name)


def parse(text: str, kind: Any, key: str) -> Any:
    """Text -> a value of the annotated type. UserError names the key and the type it takes."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [k for k in typing.get_args(kind) if k is not type(None)]
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
