"""A recipe as JSON and back; every dataclass keeps the import path of its class."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.trust import from_file
from generalist.recipe.recipe import _built


def to_json(value: Any) -> Any:
    """A dataclass tree as JSON values; every dataclass keeps the import path of its class."""
    if is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"class": path} | {f.name: to_json(vars(value)[f.name]) for f in fields(value) if f.init}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    raise UserError(f"a recipe holds JSON values and dataclasses only, not {type(value).__name__}")


def from_json(value: Any, own: bool = False) -> Any:
    """The inverse of `to_json`. A "class" may only name a part of a recipe (`generalist.data.base.trust` says from
    which modules).

    own: the values are this process's own recipe, not a file's.
    """
    if own:
        return _built(value)
    with from_file():
        return _built(value)
