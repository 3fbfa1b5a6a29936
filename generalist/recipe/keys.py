"""Keys of the command line: `optimizer.lr=1e-3` changes a tree of dataclasses by dotted path."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.recipe.encoder import Also
from generalist.recipe.exchanged import exchanged
from generalist.recipe.values import parse


def override(recipe: Any, *assignments: str) -> None:
    """Apply every "a.b.c=value", then check what they touched: keys that need each other come in any order.

    `modalities.NAME.class=...` makes that modality anew (`generalist.recipe.exchanged`). Unknown keys and wrong types
    raise UserError with the nearest valid key.
    """
    touched = [_set(recipe, assignment) for assignment in exchanged(recipe, assignments)]
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
