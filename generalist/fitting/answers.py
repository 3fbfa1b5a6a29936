"""What a label asks for: classes, several names, or a number; and labels that ask for nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.labels import alike, is_empty, name_of, ordered
from generalist.data.tables.identity import is_key
from generalist.fitting.parts import several

FEW = 20  # different whole numbers up to which they are classes
ROWS = 5  # rows that each such class has on average, at least
NEARLY = 0.9  # of the rows have a label of their own: no classes
SEPARATORS = {"|": 1.0, ";": 1.0, ",": 0.6}  # names that there may be for each text that is written with them
PARTS = 300  # names of a label that holds several, at most


@dataclass
class Answer:
    """kind: "classes", "names" (several a row) or "number". classes: in order, [] = as the source finds them."""

    kind: str
    said: str
    classes: list[str] = field(default_factory=list)
    separator: str = "|"
    counts: Counter = field(default_factory=Counter)


KINDS = ("classes", "names", "number")


def answer_of(name: str, values: list[Any], kind: str = "") -> Answer:
    """By the values in all rows, or as the `kind` says. UserError where there is nothing to learn, in one line."""
    if kind and kind not in KINDS:
        raise UserError(f"answer {kind!r}; {nearest(kind, KINDS)} (valid: {', '.join(KINDS)})")
    present = [v for v in values if not is_empty(v)]
    if not present:
        raise UserError(f"label {name!r}: no row has a value; name another column with --label")
    if any(isinstance(v, list | dict) for v in present):
        return _several(name, [v if isinstance(v, list) else list(v) for v in present], "|")
    counts = Counter(name_of(v) for v in present)
    if len(counts) == 1:
        raise UserError(f"label {name!r}: every row says {next(iter(counts))!r}; there is nothing to learn")
    if kind:
        return _asked(name, present, counts, kind)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return _number(name, present, counts)
    if (mark := separator_of([str(v) for v in present])) is not None:
        return _several(name, [str(v).split(mark) for v in present], mark)
    if len(counts) > NEARLY * len(present) and len(counts) > 8:
        raise UserError(
            f"label {name!r}: {len(counts)} different texts in {len(present)} rows name or describe rows and are no "
            f"classes; choose another --label, or learn to find them with --retrieve COLUMN {name}"
        )
    return _classes(name, counts)


def _classes(name: str, counts: Counter) -> Answer:
    """Texts that differ in case or white space only are one class, called as most rows call it."""
    ways: dict[str, list[str]] = {}
    for text, _ in counts.most_common():
        ways.setdefault(alike(text), []).append(text)
    if len(ways) == len(counts):
        return Answer("classes", f"{len(counts)} classes: {several(ordered(set(counts)), 4)}", counts=counts)
    if len(ways) == 1:
        raise UserError(f"label {name!r}: every row says {next(iter(counts))!r}; there is nothing to learn")
    one = Counter({texts[0]: sum(counts[text] for text in texts) for texts in ways.values()})
    classes = ordered(set(one))
    same = [f"{text!r} is taken for {first!r}" for first, *others in ways.values() for text in others]
    shown = ", ".join(same[:3]) + (f" and {len(same) - 3} more" if len(same) > 3 else "")
    return Answer("classes", f"{len(classes)} classes: {several(classes, 4)} ({shown})", classes, counts=one)


def _asked(name: str, present: list[Any], counts: Counter, kind: str) -> Answer:
    """As the user says."""
    if kind == "names":
        mark = separator_of([str(v) for v in present]) or "|"
        return _several(name, [str(v).split(mark) for v in present], mark)
    if kind == "classes":
        found = _classes(name, counts)
        return replace(found, classes=ordered(set(found.counts)))
    wrong = next((v for v in present if isinstance(v, bool) or not isinstance(v, int | float)), None)
    if wrong is not None:
        raise UserError(f"label {name!r}: {wrong!r} is no number; leave --answer number out")
    return Answer("number", f"a number from {min(present):g} to {max(present):g}")


def _number(name: str, present: list[Any], counts: Counter) -> Answer:
    whole = all(float(v).is_integer() for v in present if abs(v) < 1e15)
    if whole and len(counts) == len(present) > 8 and is_key(name, [int(v) for v in present]):
        raise UserError(f"label {name!r}: another whole number in every row names the rows; choose another --label")
    low, high = min(present), max(present)
    if whole and (len(counts) == 2 or (len(counts) <= FEW and len(present) >= ROWS * len(counts))):
        classes = ordered(set(counts))
        return Answer(
            "classes", f"{len(classes)} classes, whole numbers: {several(classes, 8)}", classes, counts=counts
        )
    return Answer("number", f"a number from {low:g} to {high:g}")


def _several(name: str, parts: list[list[Any]], separator: str) -> Answer:
    counts = Counter(name_of(p).strip() for row in parts for p in row if not is_empty(p))
    if not counts:
        raise UserError(f"label {name!r}: every list is empty; there is nothing to learn")
    every = sum(bool(row) for row in parts)
    if len(counts) == 1 and next(iter(counts.values())) == every == len(parts):
        raise UserError(f"label {name!r}: every row says {next(iter(counts))!r}; there is nothing to learn")
    names = ordered(set(counts))
    return Answer(
        "names", f"{len(names)} names, several a row: {several(names, 4)}", separator=separator, counts=counts
    )


def separator_of(texts: list[str]) -> str | None:
    """What stands between several names in a cell: parts that come back in other company; None for plain names."""
    whole = set(texts)
    for mark, share in SEPARATORS.items():
        cut = [[p.strip() for p in text.split(mark) if p.strip()] for text in texts]
        joined = sum(len(row) > 1 for row in cut)
        parts = {p for row in cut for p in row}
        few = len(parts) <= min(PARTS, share * len(whole)) and max(map(len, parts)) <= 40
        if joined >= 0.1 * len(texts) and few and len(whole) >= 4:
            return mark
    return None
