"""Where records come from: a `Source` is one line in a recipe, `open(split)` gives records by index.

A record is a dict from field name to raw value (array, str, number, path); it always has "id", a
string that names it in errors and in saved predictions. Records of one split never appear in another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from generalist.data.base.errors import UserError
from generalist.data.stream.order import ShardOrder, records_at

T = TypeVar("T")

Record = dict[str, Any]


class ByColumn(Sequence[Record]):
    """Rows of which one field can be had of all without making every record."""

    @abstractmethod
    def column(self, name: str) -> list[Any] | None:
        """A field's value of every row; None where no row has it."""


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

    def at(self, seed: int, task: str, start: int, count: int, batch: int) -> list[int]:
        """The records at positions start..start+count-1 of a task's endless stream. batch: positions a step."""
        if self.order is not None:
            return self.order.at(seed, task, start, count, batch)
        return records_at(seed, task, len(self), start, count)

    @property
    def notes(self) -> list[str]:
        """What was odd in the data and what was made of it, a line each."""
        return list(self.info.get("notes", ()))

    def column(self, name: str) -> list[Any] | None:
        """A field's value of every record; None where that costs much, or no record has the field."""
        if isinstance(self.rows, ByColumn):
            return self.rows.column(name)
        if isinstance(self.rows, list) and any(name in row for row in self.rows):
            return [row.get(name) for row in self.rows]
        return None

    def only(self, numbers: list[int]) -> Records:
        """Those of these numbers, in this order."""
        return replace(self, rows=Chosen(self.rows, numbers), order=None)

    def spread(self, count: int) -> Records:
        """`count` evenly spread over all, or all where there are fewer: the first of a sorted set are of one class."""
        count = min(count, len(self))
        return self.only([i * len(self) // count for i in range(count)])

    def sound(self, read: Callable[[Record], Any] = lambda record: None) -> Records:
        """Those that can be read, and that `read` does not refuse with a UserError."""
        numbers = [i for i in range(len(self)) if self._is_sound(i, read)]
        return self.only(numbers)

    def _is_sound(self, number: int, read: Callable[[Record], Any]) -> bool:
        try:
            read(self[number])
        except UserError:
            return False
        return True


@dataclass
class Chosen(ByColumn):
    """Some of the records, by their numbers; nothing is read before it is asked for."""

    rows: Sequence[Record]
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: Any) -> Any:
        return self.rows[self.numbers[number]]

    def column(self, name: str) -> list[Any] | None:
        found = Records(self.rows).column(name)
        return None if found is None else [found[i] for i in self.numbers]


def from_sound(do: Callable[[Records], T], records: Records, read: Callable[[Record], Any] = lambda record: None) -> T:
    """`do(records)` for what is learnt from a whole split; where a broken record stops it, without the broken ones.

    They are not lost in silence: whoever draws one of them in training counts and lists it.
    """
    try:
        return do(records)
    except UserError:
        sound = records.sound(read)
        if len(sound) in (0, len(records)):
            raise
        return do(sound)


@runtime_checkable
class Prefetches(Protocol):
    """Rows that can be fetched from afar before they are asked for."""

    def prefetch(self, numbers: Iterable[int]) -> None: ...


@runtime_checkable
class ReadsAnew(Protocol):
    """A source that reads other data of the same kind too, whose answers nobody knows yet."""

    def unanswered(self, data: Any) -> Records:
        """The records of a file, a folder or a data frame. UserError for data of another kind."""
        ...

    def carried(self) -> list[str]:
        """Fields that no model reads and that tell the user which record it is."""
        ...

    def answered_in(self) -> str:
        """The field of other data that would hold the answer, "" where they have none."""
        ...


@runtime_checkable
class Source(Protocol):
    """A dataclass of JSON values (so that a recipe can be saved) that opens splits."""

    def open(self, split: str) -> Records:
        """split: "train", "val" or "test". UserError when the source or the split does not exist."""
        ...
