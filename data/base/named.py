"""Things by their names: what a path of a table stands for, and what a library calls by a name out of a file."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def named(path: str) -> Any:
    """What "module:name" stands for, the module imported."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def in_library(library: str, name: str) -> Any:
    """What a library calls so; None where this version of it has nothing of the name."""
    return getattr(import_module(library), name, None) if name else None
