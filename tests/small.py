"""Small records of every kind, and the modalities that read them: what the tests of tasks and runs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data.source import Records
from tokenizers_mod.base import Modality
from tokenizers_mod.modalities import build_modalities

COLOURS = ["red", "green", "blue"]


@dataclass
class Listed:
    """Records given in the recipe itself; val and test are those of train unless given."""

    rows: dict[str, list[dict[str, Any]]]
    info: dict[str, Any] = field(default_factory=dict)

    def open(self, split: str) -> Records:
        return Records(self.rows.get(split, self.rows["train"]), dict(self.info))


def modalities(**more: dict[str, Any]) -> dict[str, Modality]:
    """The modalities that the small tasks need, each as small as it gets."""
    settings = {
        "summary": {},
        "text": {"tokenizer": "clip", "max_length": 16, "positions": 16},
        "table": {},
        "number": {},
        "series": {"patch": 4},
        "slot": {"patch": 4},
    }
    return build_modalities(settings | more)
