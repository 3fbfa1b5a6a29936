"""Where records come from: a `Source` is one line in a recipe, `open(split)` gives records by index.

A record is a dict from field name to raw value (array, str, number, path); it always has "id", a
string that names it in errors and in saved predictions. Records of one split never appear in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from data.order import ShardOrder

Record = dict[str, Any]


@dataclass
class Records:
    """An opened split: records by index and what is known of them.

    info: "classes" (list of names, for classification), "synthetic" (True when generated, not real),
    "about" (one line: what and from where), and whatever else the source knows.
    order: how shards that must be read one after the other are shuffled; None shuffles all records as one.
    """

    rows: Sequence[Record]
    info: dict[str, Any] = field(default_factory=dict)
    order: ShardOrder | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        return self.rows[index]


class Source(Protocol):
    """A dataclass of JSON values (so that a recipe can be saved) that opens splits."""

    def open(self, split: str) -> Records:
        """split: "train", "val" or "test". UserError when the source or the split does not exist."""
        ...
