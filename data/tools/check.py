"""What is wrong with a data set before a model is trained on it: counts, broken, blank and repeated samples, leakage.

Two samples are the same when a picture, a sound, an array or a text of some length is, or when all their fields but
the id are; short texts (class names, yes and no) repeat by nature and do not count. Pictures that look the same and
texts of the same words (`generalist.data.tools.alike`) are named too, but do not make a set invalid.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import file_of, is_picture, is_tensor
from generalist.data.base.labels import Labels, shown
from generalist.data.base.outliers import inside
from generalist.data.files.cache import content_key
from generalist.data.files.remote import checksum
from generalist.data.media.media import Opened, opened
from generalist.data.stream.source import Record, Records
from generalist.data.tables.identity import tells
from generalist.data.tools.alike import Looks

TOLD = 0.95  # of what a label leaves open: a column that tells so much alone is worth a look
LONG = 24  # characters from which an equal text counts as the same sample
SHOWN = 8  # samples named of each kind of problem


@dataclass
class Report:
    """problems: {kind: names of samples}, the kinds of `SERIOUS` make a data set invalid.

    notes: what the source says of itself, such as files that are no samples.
    """

    split: str
    samples: int = 0
    read: int = 0
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    classes: Counter = field(default_factory=Counter)
    fields: Counter = field(default_factory=Counter)
    looks: Looks = field(default_factory=Looks)
    notes: list[str] = field(default_factory=list)  # what the source made of odd data

    @property
    def valid(self) -> bool:
        return not any(self.problems.get(kind) for kind in SERIOUS)

    def as_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "samples": self.samples,
            "read": self.read,
            "valid": self.valid,
            "notes": self.notes,
            "problems": {kind: {"count": len(n), "samples": n[:SHOWN]} for kind, n in self.problems.items() if n},
            "classes": dict(self.classes.most_common()),
            "fields": dict(self.fields),
        }


SERIOUS = ("broken", "checksum", "repeated", "leaked")


def marks(record: Record) -> Iterator[tuple[str, str]]:
    """(field, hash) of what identifies a sample, and ("*", hash) of all its fields but the id."""
    parts = []
    for name in sorted(record):
        if name == "id":
            continue
        raw, identifies = content(record[name])
        parts.append(content_key(name, raw))
        if identifies:
            yield name, content_key(raw)
    yield "*", content_key(*parts)


def content(value: Any) -> tuple[bytes, bool]:
    """The bytes of a field's value, and whether they identify a sample."""
    if isinstance(value, Path):
        try:
            return value.read_bytes(), True
        except OSError as error:
            raise UserError(f"cannot read {value} ({error.strerror})") from error
    if isinstance(value, bytes):
        return value, True
    if is_picture(value):
        kept = file_of(value)
        return (kept, True) if kept is not None else (f"{value.mode}{value.size}".encode() + value.tobytes(), True)
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes(), value.size > 4
    if isinstance(value, str):
        return value.encode(), len(value) >= LONG
    if isinstance(value, dict) and "array" in value:
        return content(np.asarray(value["array"]))
    return repr(value).encode(), False


def look(record: Record, pixel_sizes: bool) -> dict[str, list[str]]:
    """Open every field; {what is odd: its fields}. UserError for what cannot be opened.

    pixel_sizes: "width" and "height" of the record are those of its picture.
    """
    odd: dict[str, list[str]] = defaultdict(list)
    for key, value in record.items():
        found = opened(key, value) if key != "id" else Opened()
        for note in found.notes:
            odd[note].append(key)
        said = (record.get("width"), record.get("height"))
        if pixel_sizes and found.size is not None and found.size != said:
            raise UserError(
                f"{key} has {found.size[0]} x {found.size[1]} pixels, the record says {said[0]} x {said[1]}"
            )
    return odd


def check(
    records: Records,
    split: str,
    against: dict[str, set[str]] | None = None,
    progress: Callable[[int], Any] = lambda n: None,
    looks: dict[str, Looks] | None = None,
) -> tuple[Report, set[str]]:
    """Read and decode every sample; the report and the marks of all samples.

    against: {name of another split or set: its marks}; a sample that is in one of them has leaked. looks: the same
    of what those samples look like, for samples that are nearly the same.
    """
    report = Report(split, len(records), notes=list(records.info.get("notes", [])))
    seen: dict[str, str] = {}  # a mark, and the first sample that has it
    ids: set[str] = set()
    exact: set[tuple[str, str]] = set()  # (sample, other set or "") that are equal and so not nearly equal
    columns: dict[str, dict[int, Any]] = defaultdict(dict)
    rows: list[tuple[int, str]] = []
    names = records.info.get("classes") or []
    labels = Labels(names, names) if names else None
    if left_out := [str(line) for line in records.info.get("skipped", [])]:
        report.problems["left out when written"] = left_out
    for number in range(len(records)):
        progress(1)
        name = str(number)
        try:
            record = records[number]
            name = str(record.get("id", number))
            odd = look(record, bool(records.info.get("pixel_sizes")))
            found = list(marks(record))
            like = report.looks.add(name, record)
        except UserError as error:
            report.problems["broken"].append(f"{name}: {error}")
            continue
        report.read += 1
        for note, fields in odd.items():
            report.problems[note].append(f"{name}: {', '.join(fields)}")
        if name in ids:
            report.problems["same id"].append(f"{name} is the id of an earlier sample")
        ids.add(name)
        _look_at_fields(report, name, record, labels)
        for key, value in _cells(record, records.info).items():
            columns[key][number] = value
        rows.append((number, name))
        before = next((seen[mark] for _, mark in found if mark in seen), None)
        if before is not None:
            report.problems["repeated"].append(f"{name} is {before}")
        leaked = [o for o, theirs in (against or {}).items() if any(mark in theirs for _, mark in found)]
        report.problems["leaked"] += [f"{name} is in {other}" for other in leaked]
        exact |= {(name, other) for other in [*leaked, *([""] if before else [])]}
        if like is not None and before is None:
            report.problems["nearly repeated"].append(f"{name} is like {like}")
        _look_alike(report, name, record, {o: held for o, held in (looks or {}).items() if o not in leaked})
        for _, mark in found:
            seen.setdefault(mark, name)
    _look_at_pairs(report, looks or {}, exact)
    _look_at_columns(report, columns, dict(rows), records.info)
    _look_at_classes(report, names)
    return report, set(seen)


def _cells(record: Record, info: dict[str, Any]) -> dict[str, Any]:
    """The fields that can be looked at as columns; an id only where it names something."""
    plain = {key: value for key, value in record.items() if isinstance(value, str | int | float)}
    return plain if "id" in info.get("naming", ()) else {k: v for k, v in plain.items() if k != "id"}


def _look_at_fields(report: Report, name: str, record: Record, labels: Labels | None) -> None:
    """What a sample has, blank texts, and its class."""
    for key, value in record.items():
        report.fields[key] += value is not None
        if isinstance(value, str) and not value.strip():
            report.problems["blank text"].append(f"{name}: {key}")
    label = record.get("label")
    if label is not None and not isinstance(label, float) and np.ndim(label) == 0:
        report.classes[shown(label, labels)] += 1


def _look_alike(report: Report, name: str, record: Record, looks: dict[str, Looks]) -> None:
    """Samples of other splits that the sample is nearly equal to."""
    for other, held in looks.items():
        if (like := held.said(record)) is not None:
            report.problems["nearly leaked"].append(f"{name} is like {like} of {other}")


def _look_at_pairs(report: Report, looks: dict[str, Looks], exact: set[tuple[str, str]]) -> None:
    """Samples that are nearly equal, found once all are seen; exact: those that are equal, and in which split."""
    for one, like in report.looks.pairs():
        if (one, "") not in exact:
            report.problems["nearly repeated"].append(f"{one} is like {like}")
    for other, held in looks.items():
        for one, like in report.looks.pairs(held):
            if (one, other) not in exact:
                report.problems["nearly leaked"].append(f"{one} is like {like} of {other}")


def _look_at_classes(report: Report, names: Sequence[Any]) -> None:
    """Classes of very unequal size or without samples, and fields that only some samples have."""
    if len(report.classes) > 1:
        few, many = min(report.classes.values()), max(report.classes.values())
        if many >= 10 * few:
            rare = report.classes.most_common()[-1]
            report.problems["unbalanced classes"].append(
                f"{rare[0]}: {rare[1]} of {report.read}, the largest has {many}"
            )
    for key, count in report.fields.items():
        if 0 < count < report.read:
            report.problems["missing fields"].append(f"{key}: {report.read - count} of {report.read} samples lack it")
    for missing in [n for n in names if n not in report.classes] if report.classes else []:
        report.problems["class without samples"].append(str(missing))


def _look_at_columns(
    report: Report, columns: dict[str, dict[int, Any]], names: dict[int, str], info: dict[str, Any]
) -> None:
    """Numbers far from all others, columns that give the label away, and classes that differ in case or spaces only."""
    answer = info.get("answer") or "label"
    for key, held in columns.items():
        if key == "id" or (key == "label" and (info.get("classes") or answer != key)):  # the answer has its own column
            continue
        plain = [n for n, v in held.items() if isinstance(v, int | float) and not isinstance(v, bool) and v == v]
        values = np.nan_to_num(np.array([float(held[n]) for n in plain]))
        far = [n for n, near in zip(plain, inside(values), strict=True) if not near]
        report.problems["far from the others"] += [f"{names[n]}: {key} is {held[n]:g}" for n in far]
    labels = columns.get("label", {})
    classes = info.get("classes") or []
    written = {n: shown(label, Labels(classes, classes) if classes else None) for n, label in labels.items()}
    if 1 < len(report.classes) <= max(20, report.read // 4):
        for key, held in columns.items():
            named = key == "class" and all(held.get(n) == written[n] for n in labels)  # as a folder's records have it
            if key in ("label", answer) or named:
                continue
            share = tells([as_number(held.get(n)) for n in labels], list(labels.values()))
            if share >= TOLD:
                report.problems["tells the label"].append(f"{key}: {share:.0%} of it alone")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in report.classes:
        alike[" ".join(name.casefold().split())].append(name)
    report.problems["classes alike"] += [", ".join(map(repr, sorted(n))) for n in alike.values() if len(n) > 1]


def as_number(value: Any) -> Any:
    """A word of digits as its number, so that keys in order are seen to be so."""
    return int(value) if isinstance(value, str) and value.isdecimal() and value.isascii() else value


def check_shards(folder: Path) -> Iterable[str]:
    """Shards of a written split whose bytes are not those of its index."""
    import json

    index = json.loads((folder / "index.json").read_text())
    for shard in index["shardlist"]:
        path = folder / shard["url"]
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != shard["filesize"]:
            yield f"{path}: {path.stat().st_size} bytes, the index says {shard['filesize']}"
        elif checksum(path) != shard["sha256"]:
            yield f"{path}: its checksum is not that of the index"
    listed = {shard["url"] for shard in index["shardlist"]}
    for path in sorted([*folder.glob("*.tar"), *folder.glob("*.partial")]):
        if path.name not in listed:
            yield f"{path}: not in the index, left by a writing that was interrupted"
