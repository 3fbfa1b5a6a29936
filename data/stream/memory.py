"""What was made of a sample before, kept in this process's memory: made once, not once an epoch.

Things are known by identity: a `Memory` keeps the records of sets that fit, and `Remembered` keeps what a function made
of a kept thing, which is then kept itself. What is asked of anything else is made anew, and nothing is kept of it.
Nothing is ever thrown out: a set that does not fit would be read once an epoch, and each of its samples would throw
out another before its turn comes. What is kept must not be changed by whoever gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Generator

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import is_picture

PART = 4  # a set may take this part of the limit: one that is too large must leave room for the others
LARGE = 2**20  # bytes; what is larger takes the room of many small things, which save more time a byte
OBJECT = 64  # bytes, about, of a Python object beside its content
PLAIN = frozenset({bool, int, float, complex, type(None)})


def size_of(value: Any) -> int | None:
    """Bytes of a value, about; None for a kind of object whose size is not known. An object may tell it as `nbytes`."""
    kind = type(value)
    if kind in PLAIN:
        return OBJECT
    if kind is str or kind is bytes:
        return OBJECT + len(value)
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return OBJECT + size if getattr(value, "dtype", None) != "O" else None
    if isinstance(value, dict):
        return _sum([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return _sum(value)
    if is_dataclass(value):
        return _sum([vars(value)[f.name] for f in fields(value)])
    if is_picture(value):  # a PIL picture, decoded when it is first looked at
        return OBJECT + value.width * value.height * len(value.getbands())
    return None


def _sum(values: Sequence[Any]) -> int | None:
    total = OBJECT
    for value in values:
        size = size_of(value)
        if size is None:
            return None
        total += size
    return total


class Memory:
    """limit: bytes that may be kept, about. Pickles empty, so that every loader process fills its own."""

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise UserError(f"memory_gb: the limit of {limit} bytes must not be negative")
        self.limit, self.used = limit, 0
        self._known: dict[int, Any] = {}
        self._records: dict[str, dict[int, dict[str, Any]] | None] = {}
        self._taken: dict[str, int] = {}  # by the records of a set and by what was made of them
        self._name = ""  # the set whose record was asked for last

    def __getstate__(self) -> dict[str, Any]:
        return vars(Memory(self.limit))

    def knows(self, value: Any) -> bool:
        """Whether this very object is kept."""
        return self._known.get(id(value), self) is value

    def keep(self, value: Any) -> bool:
        """Keep a value where it fits; whether it is kept."""
        if self.knows(value):
            return True
        size = size_of(value)
        taken = self._taken.get(self._name, 0)
        if size is None or size > LARGE or self.used + size > self.limit or (taken + size) * PART > self.limit:
            return False
        self.used += size
        self._taken[self._name] = taken + size
        self._known[id(value)] = value
        return True

    def record(self, name: str, rows: Sequence[dict[str, Any]], number: int) -> dict[str, Any]:
        """rows[number], kept where a quarter of the set `name` or more may be (its first record tells the size)."""
        self._name = name
        kept = self._records.get(name)
        if kept is not None and (found := kept.get(number)) is not None:
            return dict(found)
        found = rows[number]
        if name not in self._records:
            size = size_of(found)
            self._records[name] = kept = {} if size is not None and size * len(rows) <= self.limit else None
        if kept is not None and all(type(v) in PLAIN or self.keep(v) for v in found.values()):
            kept[number] = found
            return dict(found)
        return found


class Remembered:
    """A function of one value, asked once for every value that is kept.

    A generator beside the value makes no difference (nothing is drawn from it); with other arguments it is asked anew.
    """

    def __init__(self, make: Callable[..., Any], memory: Memory) -> None:
        self.make, self.memory = make, memory
        self._made: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"make": self.make, "memory": self.memory, "_made": {}}

    def __call__(self, value: Any, rng: Any = None, *others: Any, **named: Any) -> Any:
        if others or named or not isinstance(rng, Generator | None) or not self.memory.knows(value):
            given = () if rng is None and not others else (rng, *others)
            return self.make(value, *given, **named)
        found = self._made.get(id(value))
        if found is None:
            found = self.make(value) if rng is None else self.make(value, rng)
            if self.memory.keep(found):
                self._made[id(value)] = found
        return found
