"""The columns of a set's files, read alike in all of them: kinds, decimal mark, what was odd
(`generalist.data.tables.typed`)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from generalist.data.tables.readers import Raw, headed
from generalist.data.tables.typed import SHARE, Reading, decimal_of, is_gap, numbers, reading

SAMPLE = 2000  # cells of a column by which the decimal mark is found


def typed(raws: list[Raw], label: str = "") -> tuple[list[Any], list[str]]:
    """Tables of one set with columns of the same kinds in all of them, and what was odd. label: its words are names."""
    import pyarrow as pa

    notes = list(dict.fromkeys(note for raw in raws for note in raw.notes))
    for raw in raws:
        names, told = headed(raw.table.column_names)
        raw.table = raw.table.rename_columns(names).replace_schema_metadata(raw.table.schema.metadata)
        notes += told
    written = [raw for raw in raws if raw.written]
    usual = "," if any(raw.separator == ";" for raw in written) else "."
    some = (c for raw in written for column in raw.table.columns for c in column.slice(0, SAMPLE).to_pylist() if c)
    decimal = decimal_of(some, usual)
    made: dict[str, list[Any]] = {}
    for name in dict.fromkeys(n for raw in written for n in raw.table.column_names):
        parts = [raw.table[name] for raw in written if name in raw.table.column_names]
        found = None if decimal == "," else _numbers(parts)
        if found is None:
            read = reading(_counts(parts), decimal, name == label)
            notes += [f"{name}: {read.note}"] if read.note else []
            found = [_converted(part, read) for part in parts]
        made[name] = found
    notes += _measured([raw for raw in raws if not raw.written], label)
    tables = []
    for raw in raws:
        if raw.written:
            raw.table = pa.table({name: made[name].pop(0) for name in raw.table.column_names})
        tables.append(raw.table)
    return tables, notes


def _measured(raws: list[Raw], label: str) -> list[str]:
    """Texts of typed files that are measures as people write them ($1,200, 12.5 %) made numbers; what was made.

    Whole numbers stay the texts that their file says they are: keys, codes and names of classes are written so.
    """
    notes = []
    names = dict.fromkeys(name for raw in raws for name in raw.table.column_names)
    for name in names:
        own = [raw for raw in raws if name in raw.table.column_names]
        if not all(_is_text(raw.table[name].type) for raw in own):
            continue
        parts = [raw.table[name].cast("string") for raw in own]
        first = [cell for part in parts for cell in part.slice(0, SAMPLE).to_pylist()]
        some = list(dict.fromkeys(cell for cell in first if cell and not is_gap(cell)))
        decimal = decimal_of(some)
        if not some or len(numbers(some, decimal)) < SHARE * len(some):
            continue
        read = reading(_counts(parts), decimal, name == label)
        if read.kind != "number":
            continue
        for raw, part in zip(own, parts, strict=True):
            place = raw.table.column_names.index(name)
            about = raw.table.schema.metadata
            raw.table = raw.table.set_column(place, name, _converted(part, read)).replace_schema_metadata(about)
        notes.append(f"{name}: texts like {some[0]!r} are read as numbers" + (f"; {read.note}" if read.note else ""))
    return notes


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _numbers(parts: list[Any]) -> list[Any] | None:
    """Columns of text in which every cell is a plain number, converted; None for others.."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = [pc.utf8_trim_whitespace(part) for part in parts]
    cells = [pc.if_else(pc.equal(part, ""), pa.scalar(None, pa.string()), part) for part in cells]
    if all(part.null_count == len(part) for part in cells):
        return None
    for odd in (r"^[+-]?0[0-9]", r"^[+-]?[0-9]{16,}$", r"[^0-9eE.+-]"):
        if any(pc.any(pc.match_substring_regex(part, odd)).as_py() for part in cells):
            return None
    whole = all(pc.all(pc.match_substring_regex(part, r"^-?[0-9]+$")).as_py() in (True, None) for part in cells)
    try:
        return [pc.cast(part, pa.int64() if whole else pa.float64()) for part in cells]
    except pa.ArrowInvalid:
        return None


def _counts(parts: list[Any]) -> Counter:
    """{cell: how often} over all files, empty cells left out."""
    counts: Counter = Counter()
    for part in parts:
        for one in part.value_counts().to_pylist():
            if one["values"] and one["values"].strip():
                counts[one["values"]] += one["counts"]
    return counts


def _converted(column: Any, read: Reading) -> Any:
    import pyarrow as pa

    kinds = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    coded = column.combine_chunks().dictionary_encode()
    cells = coded.dictionary.to_pylist()
    values = [None if c is None or not c.strip() else read.values.get(c, c) for c in cells]
    return pa.array(values, kinds.get(read.kind, pa.string())).take(coded.indices)
