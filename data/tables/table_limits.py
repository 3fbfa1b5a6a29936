"""Table files looked over before a parser sees them: columns, cells, nesting and unpacked size
(`generalist.data.base.limits`)."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.files import check_regular
from generalist.data.base.limits import MB, limits, over
from generalist.data.media.jsons import check_depth, pieces

WRITTEN = (".csv", ".tsv", ".csv.gz", ".tsv.gz")  # cells are text
SHEETS = (".xlsx", ".xlsm")


def check_table(path: Path) -> None:
    """UserError for a table file of any known ending that is over a limit; of others nothing is said."""
    lower = path.name.lower()
    if lower.endswith(WRITTEN):
        check_lines(path, b"\t" if ".tsv" in lower else b",")
    elif lower.endswith((".jsonl", ".jsonl.gz", ".json")):
        check_json_lines(path)
    elif lower.endswith(SHEETS):
        check_workbook(path)
    elif lower.endswith(".parquet") and path.is_file():
        check_parquet(path)


def check_lines(path: Path, separator: bytes = b",") -> None:
    """UserError where a text table has too many columns, a line longer than a cell may be, or too many bytes."""
    check_regular(path, "table")
    longest = limits().cell_mb * MB
    total = line = columns = 0
    head = True
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        while piece := file.read(MB):
            end = piece.find(b"\n")
            if head:
                columns += piece[: end if end >= 0 else None].count(separator)
                head = end < 0
            if columns >= limits().columns:
                raise over(f"table {path}", "columns", f"{columns + 1:,} or more columns")
            line += end if end >= 0 else len(piece)
            if line > longest:
                raise over(f"table {path}", "cell_mb", f"a line of {line / MB:,.0f} MB or more")
            if end >= 0:
                line = len(piece) - piece.rfind(b"\n") - 1
            total += len(piece)
            if total > limits().table_mb * MB:
                raise over(f"table {path}", "table_mb", f"more than {total / MB:,.0f} MB")


def check_json_lines(path: Path) -> None:
    """UserError where the lines of a JSON file are nested too deep, have too many names, or are too much."""
    check_regular(path, "table")
    total = 0
    for piece in pieces(path):
        check_depth(piece, f"table {path}")
        total += len(piece)
        if total > limits().table_mb * MB:
            raise over(f"table {path}", "table_mb", f"more than {total / MB:,.0f} MB")
        if len(piece) > 4 * limits().columns and total == len(piece):
            names = piece.partition(b"\n")[0].count(b'":')
            if names > limits().columns:
                raise over(f"table {path}", "columns", f"{names:,} names in a record")


def check_workbook(path: Path) -> None:
    """UserError where the unpacked sheets of a workbook, as its own directory counts them, are too much."""
    check_regular(path, "table")
    try:
        with zipfile.ZipFile(path) as packed:
            total = sum(one.file_size for one in packed.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"table {path}: it is no workbook ({error})") from error
    if total > limits().table_mb * MB:
        raise over(f"table {path}", "table_mb", f"{total / MB:,.0f} MB unpacked")


def check_parquet(path: Path) -> None:
    """UserError where the columns or rows of a Parquet file, as its own footer counts them, are too many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_regular(path, "table")
    try:
        about = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"table {path}: cannot be read ({str(error).splitlines()[0]})") from error
    if about.num_columns > limits().columns:
        raise over(f"table {path}", "columns", f"{about.num_columns:,} columns")
    if about.num_rows * about.num_columns > limits().table_mb * MB:  # a byte a cell is the least
        raise over(f"table {path}", "table_mb", f"{about.num_rows:,} rows of {about.num_columns:,} columns")


def check_cells(table: Any, what: str) -> None:
    """UserError where a cell of text of a pyarrow table is too long."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            if longest > limits().cell_mb * MB:
                raise over(f"{what}, column {name[:60]!r}", "cell_mb", f"a cell of {longest / MB:,.0f} MB")
