"""What a label says: which of the named classes a record is of, however the label was stored.

A label that is text is a name, written otherwise in case or white space where only one name is. A number is the name
that is written so, and a place among the names only where no name is a number. A boolean is the name "true" or "false".
Where the source itself gave its classes, an integer is a place among those, and finds its name among the task's, in
whatever order these are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from generalist.data.base.errors import Mismatch, nearest

WORDS = {"true": True, "false": False}


def is_empty(value: Any) -> bool:
    """No label at all: None, NaN or a text of nothing; a word such as "NA" or "null" is a name."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float | np.floating) and bool(value != value))


def name_of(value: Any) -> str:
    """The name that a value is written as: true for True, 3 for 3 and 3.0."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value)


def ordered(names: set[str]) -> list[str]:
    """Names in order: numbers by their value, others by the alphabet."""
    if all(_is_integer(name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def alike(name: str) -> str:
    """What a name is apart from case and white space, which most text tokenizers do not tell apart."""
    return " ".join(name.casefold().split())


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and name.isascii()


class Labels:
    """label -> its place among `names`.

    behind: the source's own classes, which its integers count; () where it has none. note: what a reader should know of
    how the labels are read, "" where they are names as written.
    """

    def __init__(self, names: Sequence[Any], behind: Sequence[Any] = ()) -> None:
        self.names = [str(name) for name in names]
        self.at = {name: i for i, name in enumerate(self.names)}
        self.behind = [str(name) for name in behind]
        ways: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            ways.setdefault(alike(name), []).append(i)
        self.alike = {name: places[0] for name, places in ways.items() if len(places) == 1}
        folded = {name.strip().lower(): i for i, name in enumerate(self.names)}
        self.words = {WORDS[name]: i for name, i in folded.items() if name in WORDS}
        self.counted = any(_is_integer(name) for name in self.names)  # then numbers are names, not places
        self.renamed = bool(self.behind) and not any(name in self.at for name in self.behind)
        self.note = ""
        if self.renamed:
            shown = ", ".join(f"{a} is {b}" for a, b in zip(self.behind[:4], self.names, strict=False))
            self.note = f"no class of the data is called as one of the given names; they are taken in order: {shown}"
        elif not self.behind and not self.counted and not self.words:
            self.note = f"labels that are numbers are places among the names: 0 is {self.names[0]!r}"

    def place(self, label: Any) -> int:
        """UserError for a label that is none of the classes."""
        if isinstance(label, str):
            return self._named(label)
        if isinstance(label, bool | np.bool_):
            if (place := self.words.get(bool(label), self.at.get(str(int(label))))) is None:
                shown = ", ".join(self.names[:8])
                raise Mismatch(f"label {label} is none of the classes {shown}; a boolean is named 'true' or 'false'")
            return place
        if np.ndim(label):
            raise Mismatch(f"label {label!r:.60} is several; a task of the kind multilabel asks for several names")
        last = (len(self.names) if self.renamed or not self.behind else len(self.behind)) - 1
        whole = isinstance(label, int | float | np.number) and label == label and int(label) == label
        if whole and not self.behind:
            if (place := self.at.get(name_of(label))) is not None:
                return place
            if self.words and int(label) in (0, 1) and bool(label) in self.words:
                return self.words[bool(label)]
            if self.counted:
                shown = ", ".join(self.names[:8])
                raise Mismatch(f"class index {label} is none of the names {shown}; name it among the classes")
        if not whole or not 0 <= label <= last:
            raise Mismatch(f"class index {label} is not one of 0..{last}; give the names with classes=[...]")
        return int(label) if self.renamed or not self.behind else self._named(self.behind[int(label)])

    def _named(self, label: str) -> int:
        place = self.at.get(label)
        if place is None and self.renamed and label in self.behind:
            place = self.behind.index(label)
            place = place if place < len(self.names) else None
        if place is None and label.strip().lower() in WORDS:
            place = self.words.get(WORDS[label.strip().lower()])
        if place is None and (place := self.alike.get(alike(label))) is None:
            raise Mismatch(f"unknown class {label!r} in the data; {nearest(label, self.names)}")
        return place


def shown(label: Any, labels: Labels | None) -> str:
    """The class that a label of a source stands for, in words; as it is written where the source has no such class."""
    try:
        return name_of(label) if labels is None else labels.names[labels.place(label)]
    except Mismatch:
        return name_of(label)
