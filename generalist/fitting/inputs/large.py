"""A table's file too large to be looked at whole: every k-th row of it, streamed into a file beside the run."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.tables.readers import WRITTEN, decoded_head, separator_of

MOST = 300_000  # rows that are looked at
LEAST = 50_000_000  # bytes of a file below which nothing is counted
HEAD = 1_000_000  # bytes that tell how long a row is


def thinned(path: str, out: Path) -> tuple[str, str]:
    """(the file to read, a line that says what was done, "" for nothing). UserError where it cannot be read or written.

    A written table comes back as rows.csv in the run's folder, a Parquet file as rows.parquet.
    """
    source, lower = Path(path), path.lower()
    if not source.is_file() or source.stat().st_size < LEAST:
        return path, ""
    try:
        if lower.endswith(".parquet"):
            return _parquet(source, out)
        if lower.endswith(WRITTEN):
            return _written(source, out)
    except OSError as error:
        raise UserError(f"{path}: cannot be thinned into {out} ({error})") from error
    return path, ""


def _said(path: Path, rows: int, kept: int, step: int) -> str:
    return f"{path}: {rows:,} rows are many; every {step}th, {kept:,} of them, is learnt"


def _parquet(path: Path, out: Path) -> tuple[str, str]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    rows = file.metadata.num_rows
    if rows <= MOST:
        return str(path), ""
    step, kept = -(-rows // MOST), 0
    out.mkdir(parents=True, exist_ok=True)
    target = out / "rows.parquet"
    with pq.ParquetWriter(target, file.schema_arrow) as writer:
        for part in _every(file.iter_batches(), step):
            writer.write_batch(part)
            kept += len(part)
    return str(target), _said(path, rows, kept, step)


def _written(path: Path, out: Path) -> tuple[str, str]:
    import pyarrow as pa
    from pyarrow import csv

    head, encoding = decoded_head(path, HEAD)
    size = path.stat().st_size * (8 if path.name.lower().endswith(".gz") else 1)
    about = size / max(1.0, len(head.encode()) / max(1, head.count("\n")))
    if about <= MOST:
        return str(path), ""
    step = -(-int(about) // MOST)
    out.mkdir(parents=True, exist_ok=True)
    target, rows, kept = out / "rows.csv", 0, 0
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        reader = csv.open_csv(
            stream,
            csv.ReadOptions(encoding=encoding, block_size=8 << 20),
            csv.ParseOptions(delimiter=separator_of(head, ".tsv" in path.name.lower()), newlines_in_values=True),
            csv.ConvertOptions(
                column_types={name: pa.string() for name in _names(head, path)}, strings_can_be_null=False
            ),
        )
        with csv.CSVWriter(target, reader.schema) as writer:
            for part in _every(reader, step):
                writer.write_batch(part)
                kept += len(part)
                rows += len(part) * step
    return str(target), _said(path, rows, kept, step)


def _names(head: str, path: Path) -> list[str]:
    import csv

    return next(csv.reader([head.splitlines()[0]], delimiter=separator_of(head, ".tsv" in path.name.lower())))


def _every(batches: Any, step: int) -> Iterator[Any]:
    """Rows 0, step, 2 step ... of all batches together."""
    import pyarrow as pa

    before = 0
    for part in batches:
        numbers = range(-before % step, len(part), step)
        before += len(part)
        if len(numbers):
            yield part.take(pa.array(numbers))
