"""What a table's file says of its columns beside their values: which name files, which are classes, and their names.

Files are named relative to the file that names them. Class names come from the schema that Hugging Face's `datasets`
writes into Parquet (ClassLabel), or from a column of categories (pandas, polars), whose order they keep.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generalist.data.files.paths import beside
from generalist.data.media.kinds import MEDIA, ending
from generalist.data.media.media import names_file

LOOKED_AT = 64  # cells of a column by which it is told whether it names files
ENDINGS = frozenset(e for ends in MEDIA.values() for e in ends)


def file_columns(table: Any, folder: Path) -> set[str]:
    """Columns of texts that all end like pictures, sounds or clips and are called so, or are found in `folder`."""
    import pyarrow as pa

    found = set()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            cells = [c for c in column.slice(0, LOOKED_AT).to_pylist() if c]
            likely = bool(cells) and all(ending(Path(c)) in ENDINGS and "://" not in c for c in cells)
            if likely and (all(names_file(name, c) for c in cells) or any(beside(folder, c).is_file() for c in cells)):
                found.add(name)
    return found


def media_columns(table: Any) -> set[str]:
    """Columns of pictures and sounds as Parquet holds them, {"bytes", "path"} or bytes: no part of a row of numbers."""
    import pyarrow as pa

    def held(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    return {name for name, column in zip(table.column_names, table.columns, strict=True) if held(column.type)}


def class_names(table: Any, name: str) -> list[str] | None:
    """The names of a ClassLabel column, whose values are their numbers (-1 = none); None for another column."""
    try:
        features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return None
    names = (features.get(name) or {}).get("names") if isinstance(features, dict) else None
    return [str(n) for n in names] if isinstance(names, list) and names else None


def class_column(table: Any) -> str:
    """The only ClassLabel column of a table; "" where there is none or more than one."""
    found = [name for name in table.column_names if class_names(table, name) is not None]
    return found[0] if len(found) == 1 else ""


def categories(table: Any, name: str) -> list[str] | None:
    """The names of a column of categories in their own order; None for another column."""
    import pyarrow as pa

    if name not in table.column_names or not pa.types.is_dictionary(table[name].type):
        return None
    values = table[name].combine_chunks()
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    names = values.dictionary.to_pylist()
    return list(names) if all(isinstance(n, str) for n in names) else None
