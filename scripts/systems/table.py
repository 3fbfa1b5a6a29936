"""The published systems that are compared, and where each is built.

A module of the table has

    knows(reference) -> bool                      whether a file is of its system, by the names of its tensors
    compute(reference) -> {name: Tensor}          what the project's parts give for the file's outputs, by their names

and takes every size from `reference.config`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from generalist.scripts.systems.reference import Reference

SYSTEMS = {
    "itransformer": "generalist.scripts.systems.itransformer",
    "resformer": "generalist.scripts.systems.resformer",
    "vir": "generalist.scripts.systems.vir",
    "hyena": "generalist.scripts.systems.hyena",
    "rmt": "generalist.scripts.systems.rmt",
    "spectformer": "generalist.scripts.systems.spectformer",
    "svt": "generalist.scripts.systems.hierarchical",
    "crossformer": "generalist.scripts.systems.crossformer",
    "t2t": "generalist.scripts.systems.t2t",
    "activator": "generalist.scripts.systems.activator",
    "duo": "generalist.scripts.systems.duo",
    "vit_res": "generalist.scripts.systems.vit_res",
    "libraries": "generalist.scripts.systems.libraries",
}


def system_of(reference: Reference) -> tuple[str, ModuleType] | None:
    """The name and module of the system that a file is of, None where none knows it."""
    for name, path in SYSTEMS.items():
        module = import_module(path)
        if module.knows(reference):
            return name, module
    return None
