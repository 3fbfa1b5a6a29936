"""A run is a recipe: a Python function that returns this dataclass tree. Keys change it by dotted path.

    generalist train demo steps=100 optimizer.lr=1e-3 tasks.digits.batch=32 modalities.image.patch=4
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from data.errors import UserError, nearest
from tasks.base import Task
from tokenizers_mod.base import Modality


@dataclass
class ModelSpec:
    """Sizes and switches of the shared encoder (see `GeneralistConfig`)."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    layer_scale: float = 0.0
    drop_path: float = 0.0
    initial_scale: float = 10.0
    embedding_norm: bool = True
    final_norm: bool = False


@dataclass
class OptimizerSpec:
    """kind: "balanced" (MT-AdamW) or "adamw". warmup in steps; clip: largest gradient norm, 0 = off."""

    kind: str = "balanced"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.05
    warmup: int = 50
    clip: float = 0.0
    bias_correction: bool = True


@dataclass
class EngineSpec:
    """precision: "fp32" or "bf16"; accumulate: micro steps a step; threads: 0 leaves torch's own."""

    precision: str = "fp32"
    accumulate: int = 1
    threads: int = 0
    device: str = "auto"


@dataclass
class CheckpointSpec:
    """every: steps between checkpoints, 0 = only at the end; keep: how many of the newest stay."""

    every: int = 200
    keep: int = 2


@dataclass
class Recipe:
    """Everything a run is made of. sampling: "unmixed" (one task a step on all ranks) or "mixed"."""

    name: str
    about: str
    steps: int
    modalities: dict[str, Modality]
    tasks: list[Task]
    seed: int = 0
    sampling: str = "unmixed"
    workers: int = 0
    model: ModelSpec = field(default_factory=ModelSpec)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)

    def check(self) -> None:
        """UserError for values that cannot work."""
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if not self.tasks:
            raise UserError("a recipe needs at least one task")
        for value, key, valid in (
            (self.sampling, "sampling", ("unmixed", "mixed")),
            (self.optimizer.kind, "optimizer.kind", ("balanced", "adamw")),
        ):
            if value not in valid:
                raise UserError(f"{key}={value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")


# --- keys ---


def override(recipe: Any, assignment: str) -> None:
    """Apply "a.b.c=value". Unknown keys and wrong types raise UserError with the nearest valid key."""
    path, sign, text = assignment.partition("=")
    if not sign or not path:
        raise UserError(f"{assignment!r} is not key=value (example: optimizer.lr=1e-3)")
    *parents, last = path.split(".")
    target, walked = recipe, ""
    for part in parents:
        target = _child(target, part, walked)
        walked = f"{walked}{part}."
    _assign(target, last, text, walked)


def _keys(target: Any) -> dict[str, Any]:
    if isinstance(target, list) and target and hasattr(target[0], "name"):
        return {item.name: item for item in target}
    if isinstance(target, dict):
        return target
    if is_dataclass(target):
        return {f.name: getattr(target, f.name) for f in fields(target)}
    return {}


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
    if is_dataclass(target):
        kind = typing.get_type_hints(type(target))[key]
        setattr(target, key, parse(text, kind, walked + key))
        if hasattr(target, "__post_init__") and not isinstance(target, Task):
            target.__post_init__()
    elif isinstance(target, dict) and not is_dataclass(target[key]):
        target[key] = parse(text, type(target[key]), walked + key)
    else:
        inner = ", ".join(f"{walked}{key}.{k}" for k in list(_keys(target[key] if isinstance(target, dict) else keys[key]))[:6])
        raise UserError(f"{walked + key!r} is a group of keys, not a value; set one of {inner}")


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
        raise UserError(f"{key}={text!r} is none of {options}")
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
            return base(value)
    except (ValueError, KeyError, OverflowError, json.JSONDecodeError) as error:
        name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
        raise UserError(f"{key}={text!r}: this key takes {name}") from error
    raise UserError(f"{key} cannot be set from the command line; write a recipe file that changes it")


# --- JSON ---


def to_json(value: Any) -> Any:
    """A dataclass tree as JSON values; every dataclass keeps the import path of its class."""
    if is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"class": path} | {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    raise UserError(f"a recipe holds JSON values and dataclasses only, not {type(value).__name__}")


def from_json(value: Any) -> Any:
    """The inverse of `to_json`. A "class" may only name a dataclass."""
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if not isinstance(value, dict):
        return value
    values = {k: from_json(v) for k, v in value.items() if k != "class"}
    if "class" not in value:
        return values
    module, _, name = value["class"].partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the recipe names the class {value['class']!r}, which cannot be imported ({error})") from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UserError(f"the recipe names {value['class']!r}, which is not a dataclass")
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"the recipe's {value['class']!r} does not fit this version ({error})") from error


# --- finding recipes ---

RECIPES: dict[str, str] = {
    "demo": "generalist.recipes.demo:demo",
}


def load_recipe(name: str) -> Recipe:
    """A name of the table, a path of a .py file (its `recipe` function) or of a recipe.json."""
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(f"no recipe file {name}")
        loaded = from_json(json.loads(path.read_text()))
        if not isinstance(loaded, Recipe):
            raise UserError(f"{name} does not hold a recipe")
        return loaded
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"no recipe file {name}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        make = getattr(module, "recipe", None)
        if make is None:
            raise UserError(f"{name} defines no function `recipe`; add `def recipe() -> Recipe:`")
    elif name in RECIPES:
        module_name, _, attribute = RECIPES[name].partition(":")
        make = getattr(importlib.import_module(module_name), attribute)
    else:
        raise UserError(f"unknown recipe {name!r}; {nearest(name, RECIPES)} (or give a .py file)")
    return _checked(make, name)


def _checked(make: Callable[[], Any], name: str) -> Recipe:
    recipe = make()
    if not isinstance(recipe, Recipe):
        raise UserError(f"recipe {name!r} returns {type(recipe).__name__}, not a Recipe")
    return recipe
