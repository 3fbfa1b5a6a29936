"""Modalities whose class is named on the command line: `modalities.image.class=backbone`, with settings beside it."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.recipe.values import parse
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_class

GROUP, CLASS = "modalities", "class"


def exchanged(recipe: Any, assignments: Sequence[str]) -> list[str]:
    """Make every modality whose class is named, new or in the place of one that the recipe has, with the settings
    that are given beside it. Returns the other assignments. UserError names the nearest class or setting."""
    given: dict[str, dict[str, str]] = {}
    rest: list[str] = []
    if GROUP not in vars(recipe):  # a part of a recipe
        return list(assignments)
    named = {a.split(".")[1] for a in assignments if _key(a)[2:] == [CLASS]}
    for assignment in assignments:
        parts = _key(assignment)
        if parts and parts[1] in named:
            given.setdefault(parts[1], {})[parts[2]] = assignment.partition("=")[2]
        else:
            rest.append(assignment)
    for name, texts in given.items():
        path = texts.pop(CLASS)
        kind = modality_class(name, path)
        types, known = typing.get_type_hints(kind), [field.name for field in fields(kind) if field.init]
        values: dict[str, Any] = {CLASS: path}
        for key, text in texts.items():
            if key not in known:
                start = f"{GROUP}.{name}."
                raise UserError(f"unknown key {start + key!r}; {nearest(start + key, [start + k for k in known])}")
            values[key] = parse(text, types[key], f"{GROUP}.{name}.{key}")
        recipe.modalities |= build_modalities({name: values})
    return rest


def _key(assignment: str) -> list[str]:
    """["modalities", name, setting], or nothing for other keys."""
    parts = assignment.partition("=")[0].split(".")
    return parts if len(parts) == 3 and parts[0] == GROUP else []
