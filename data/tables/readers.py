"""Files of tables -> pyarrow tables, whatever their dialect: separator, encoding, decimal mark, quotes, line ends.

Columns of a text file come as text, to be read by `generalist.data.tables.typed` once all files of a set are known.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, time
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.labels import name_of
from generalist.data.tables.table_limits import SHEETS as SHEETS
from generalist.data.tables.table_limits import WRITTEN as WRITTEN
from generalist.data.tables.table_limits import check_cells, check_table

ENDINGS = (*WRITTEN, *SHEETS, ".parquet", ".arrow", ".feather", ".jsonl", ".jsonl.gz", ".json")
SEPARATORS = (",", ";", "\t", "|")
BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass
class Raw:
    """A file's columns. written: they are text cells; separator: between them; notes: what a reader should know."""

    table: Any
    written: bool = False
    separator: str = ","
    notes: list[str] = field(default_factory=list)


def read_raw(path: str | Path) -> Raw:
    """UserError when the file is not there, is no table, or more than `generalist.data.base.limits` allows."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no table {path}")
    check_table(path)
    found = _parsed(path, path.name.lower())
    check_cells(found.table, f"table {path}")
    return found


def _parsed(path: Path, lower: str) -> Raw:
    import pyarrow as pa

    try:
        if lower.endswith(".parquet") or path.is_dir():
            import pyarrow.parquet as pq

            return Raw(pq.read_table(path))
        if lower.endswith((".arrow", ".feather")):
            import pyarrow.feather as feather

            try:
                return Raw(feather.read_table(path))
            except pa.ArrowInvalid:  # the streaming format, as `datasets` writes it
                with pa.memory_map(str(path)) as mapped:
                    return Raw(pa.ipc.open_stream(mapped).read_all())
        if lower.endswith(WRITTEN):
            return read_text(path, lower.endswith((".tsv", ".tsv.gz")))
        if lower.endswith((".jsonl", ".jsonl.gz", ".json")):
            return read_json(path)
        if lower.endswith(SHEETS):
            return read_sheet(path)
    except UserError as error:
        raise UserError(f"table {path}: {error}") from error
    except (pa.ArrowException, OSError, EOFError, ValueError, RecursionError) as error:
        raise UserError(f"table {path}: cannot be read ({(str(error).splitlines() or ['?'])[0]})") from error
    raise UserError(f"table {path}: unknown ending; use one of {', '.join(ENDINGS)}")


def decoded_head(path: Path, size: int) -> tuple[str, str]:
    """The first `size` bytes of a file as text, cut at a line's end, and the encoding."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        raw = file.read(size)
    whole = raw[: raw.rfind(b"\n") + 1] or raw
    for mark, encoding in BOMS:
        if raw.startswith(mark):
            return whole.decode(encoding, errors="ignore"), encoding
    for encoding in ("utf-8", "cp1252"):
        try:
            return whole.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return whole.decode("latin-1"), "latin-1"


def decoded(path: Path) -> tuple[str, list[str]]:
    """A file's text and a note where it is no UTF-8."""
    raw = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        raw = gzip.decompress(raw)
    for mark, encoding in BOMS:
        if raw.startswith(mark):
            return raw.decode(encoding), []
    head = raw[:4000]
    if head.count(0) > len(head) // 4:  # UTF-16 without its mark: every other byte of plain letters is 0
        encoding = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        return raw.decode(encoding), [f"no byte order mark; read as {encoding}"]
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError:
        try:
            return raw.decode("cp1252"), ["no UTF-8; read as cp1252 (Western European)"]
        except UnicodeDecodeError:
            return raw.decode("latin-1"), ["no UTF-8; read as latin-1"]


def separator_of(text: str, tabs: bool = False) -> str:
    """The separator that cuts the header and the first lines into equally many cells."""
    best, chosen = 0.0, "\t" if tabs else ","
    for one in sorted(SEPARATORS, key=lambda s: s != chosen):
        rows = csv.reader(io.StringIO(text[:100_000], newline=""), delimiter=one, skipinitialspace=True)
        found = []
        try:
            for row in rows:
                if row:
                    found.append(len(row))
                if len(found) == 200:
                    break
        except csv.Error:  # a quote that the sample cuts off
            pass
        if not found or found[0] < 2:
            continue
        score = sum(n == found[0] for n in found) / len(found) + found[0] / 1e6
        if score > best:
            best, chosen = score, one
    return chosen


def read_text(path: Path, tabs: bool) -> Raw:
    import pandas
    import pyarrow as pa

    text, notes = decoded(path)
    separator = ""
    if named := re.match(r'"?sep=(.)"?\r?\n', text):  # a spreadsheet's own line
        separator, text = named[1], text[named.end() :]
    if not text.strip():
        raise UserError("it is empty")
    separator = separator or separator_of(text, tabs)
    csv.field_size_limit(2**31 - 1)  # long documents
    frame = pandas.read_csv(
        io.StringIO(text),
        sep=separator,
        header=None,
        dtype=str,
        na_filter=False,
        skipinitialspace=True,
        engine="c",
        low_memory=False,
    )
    columns = [frame[i] for i in frame.columns]
    names, told = headed([str(column.iloc[0]) for column in columns])
    arrays = [pa.array(column.iloc[1:], pa.string(), from_pandas=True) for column in columns]
    table = pa.table(dict(zip(names, arrays, strict=True)))
    return Raw(table, True, separator, [*notes, *told])


def read_sheet(path: Path) -> Raw:
    """The first sheet of a workbook that holds cells, as text: a cell's kind in it is how it looks, not what it is."""
    import pandas
    import pyarrow as pa

    try:
        sheets = pandas.read_excel(path, sheet_name=None, header=None, dtype=object, engine="openpyxl")
    except ImportError as error:
        raise UserError("reading workbooks needs openpyxl: pip install openpyxl") from error
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError("it is no workbook, whatever its name says") from error
    full = {name: frame.dropna(how="all").dropna(how="all", axis=1) for name, frame in sheets.items()}
    full = {name: frame for name, frame in full.items() if len(frame)}
    if not full:
        raise UserError("it is empty")
    (name, frame), *others = full.items()
    columns = [[_cell(value) for value in frame[i]] for i in frame.columns]
    names, notes = headed([column[0] for column in columns])
    if others:
        notes.insert(0, f"sheet {name!r} is read; {len(others)} more are not ({others[0][0]!r})")
    return Raw(
        pa.table({n: pa.array(c[1:], pa.string()) for n, c in zip(names, columns, strict=True)}), True, "", notes
    )


def _cell(value: Any) -> str:
    """A cell of a workbook as a text file would hold it; an empty one is empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return str(value)


def headed(names: list[str]) -> tuple[list[str], list[str]]:
    """Column names, each once, and what was changed."""
    out: list[str] = []
    notes = []
    for i, name in enumerate(names):
        name = name.strip() or f"column {i + 1}"
        if not names[i].strip():
            notes.append(f"column {i + 1} has no name; it is called {name!r}")
        if name in out:
            number = 1
            while f"{name}.{number}" in [*out, *names]:
                number += 1
            notes.append(f"two columns are called {name!r}; column {i + 1} is called '{name}.{number}'")
            name = f"{name}.{number}"
        out.append(name)
    return out, notes


def read_json(path: Path) -> Raw:
    import pyarrow as pa

    text, notes = decoded(path)
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = []
        for i, line in enumerate(text.split("\n")):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise UserError(f"line {i + 1} is no JSON ({error})") from error
    if bad := [i for i, row in enumerate(rows) if not isinstance(row, dict)]:
        raise UserError(f"record {bad[0]} is no object of named values")
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for name in names:
        values = [row.get(name) for row in rows]
        kinds = Counter(type(v) for v in values if v is not None)
        if str in kinds and kinds.keys() <= {str, int, float, bool} and len(kinds) > 1:
            odd = sum(kinds.values()) - kinds[str]
            notes.append(f"{name}: {odd} of {len(values)} values are no text among texts; all are read as text")
            values = [v if v is None or isinstance(v, str) else name_of(v) for v in values]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, OverflowError) as error:
            raise UserError(f"column {name!r} holds values of several kinds ({str(error).splitlines()[0]})") from error
    return Raw(pa.table(arrays), notes=notes)
