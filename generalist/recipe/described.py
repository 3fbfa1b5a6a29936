"""A recipe key by key: its type, its value, its default and what it is, from the docstrings of the recipe's classes."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

# what names say by themselves, and docstrings therefore need not
COMMON = {
    "name": "by which it goes",
    "about": "what it is, in a line",
    "steps": "of the training",
    "modalities": "what can be read, by name",
    "tasks": "what is learnt",
    "seed": "of the weights and of the order of samples",
    "model": "the shared encoder",
    "optimizer": "how weights are moved",
    "source": "where the samples come from",
    "inputs": "{modality: field of the sample that it reads}",
    "batch": "samples a step",
    "share": "of the steps, beside the other tasks' shares",
    "width": "of the tokens' vectors",
    "layers": "of the encoder",
    "heads": "of its attention",
    "hidden": "width of the channel mixers",
    "activation": "of the channel mixers",
    "eps": "a small number added where a norm or a root divides",
    "lr": "highest learning rate",
    "betas": "of the two moments",
    "weight_decay": "decoupled, on matrices alone",
    "bias_correction": "of the two moments",
    "path": "file or folder",
    "val": "share of the samples that validate",
    "test": "share of the samples that are held out",
    "label": "the field with the answer",
    "target": "the field with the answer",
    "classes": "names of the classes, [] = as the source finds them",
    "size": "of a sample's longer side",
    "patch": "of a token",
    "mean": "that is taken off",
    "std": "that is divided by",
    "channels": "of a sample",
    "schemas": "columns of the tables, learnt from training data",
    "final_norm": "a norm behind the last layer",
    "horizon": "steps ahead",
    "images": "folder of the pictures",
    "bias": "whether the linear map has one",
    "device": '"auto", "cpu" or "cuda"',
    "policy": 'how training uses the candidates: "exact", "sampled" or "cached"',
}


@dataclass(frozen=True)
class Key:
    """path: dotted, as the command line takes it. default: None where there is none (`needed`)."""

    path: str
    kind: str
    value: Any
    default: Any
    needed: bool
    about: str


def described(recipe: Any) -> list[Key]:
    """Every key of a recipe, in the order of its classes."""
    return list(_keys(recipe, ""))


def _keys(part: Any, prefix: str) -> Iterator[Key]:
    for found in fields(part):
        if not found.init:
            continue
        value, path = vars(part)[found.name], f"{prefix}{found.name}"
        if is_dataclass(value):
            yield _key(part, found, path, inspect.getdoc(type(value)) or "")
            yield from _keys(value, f"{path}.")
        elif members := _members(value):
            for name, member in members.items():
                yield Key(f"{path}.{name}", type(member).__name__, member, None, False, first_sentence(type(member)))
                yield from _keys(member, f"{path}.{name}.")
        else:
            yield _key(part, found, path, documented(type(part), found.name))


def _key(part: Any, found: Field, path: str, about: str) -> Key:
    made = found.default_factory() if found.default_factory is not MISSING else found.default
    kind = shown_kind(typing.get_type_hints(type(part)).get(found.name, Any))
    text = " ".join(about.split("\n\n")[0].split())
    return Key(path, kind, vars(part)[found.name], None if made is MISSING else made, made is MISSING, text)


def _members(value: Any) -> dict[str, Any]:
    """The dataclasses that a list or dict holds, by name; {} where it holds other things."""
    named = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        named = {str(getattr(v, "name", i)): v for i, v in enumerate(value)}
    return named if named and all(is_dataclass(v) for v in named.values()) else {}


def shown_kind(kind: Any) -> str:
    """A type in a few letters."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " | ".join(shown_kind(k) for k in typing.get_args(kind))
    if kind is type(None):
        return "None"
    inner = [shown_kind(k) for k in typing.get_args(kind) if k is not Ellipsis]
    name = getattr(typing.get_origin(kind) or kind, "__name__", str(kind))
    return f"{name}[{', '.join(inner)}]" if inner else name


def first_sentence(kind: type) -> str:
    text = " ".join((inspect.getdoc(kind) or "").split())
    return text.partition(". ")[0].rstrip(".")


def documented(kind: type, name: str) -> str:
    """What the docstrings of a class and those above it say of a field, in a line; "" where they say nothing."""
    prose = [(base.__doc__ or "").partition(">>>")[0] for base in kind.__mro__ if is_dataclass(base)]
    texts = [" ".join(text.split()) for text in prose]
    for text in texts:
        if found := _after_colon(text, name):
            return found
    if name in COMMON:
        return COMMON[name]
    for text in texts:  # a sentence that speaks of it
        for sentence in re.split(r"(?<=[.;]) ", text):
            if re.search(rf"\b{re.escape(name)}\b", sentence):
                return sentence.rstrip(".;")
    return ""


def _after_colon(text: str, name: str) -> str:
    """What stands behind "name:" or "a, name:", up to the next such beginning."""
    listed = r"(?:\w+(?:, (?:and )?| and ))*"
    start = re.search(rf"(?:^|[.;)] |\. ){listed}{re.escape(name)}(?:, \w+)*(?:, | and )?(?:\w+)?: ", text)
    if start is None:
        return ""
    rest = text[start.end() :]
    end = re.search(rf"[.;)] {listed}\w+: ", rest)
    return (rest[: end.start() + 1] if end else rest).rstrip(".;").strip()
