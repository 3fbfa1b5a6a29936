"""Hugging Face `datasets`: a name on the hub, a local folder or script-less files, or a set saved to disk.

Rows are read by number from memory-mapped Arrow, so the order stays a function of seed and position and a resume
is exact (streaming with a shuffle buffer is neither). Of a set that is too large to download, stream=true with
limit=ROWS fetches so many rows once and keeps them; put into shards they need neither the hub nor `datasets`:
`generalist data shard hub:NAME OUT --set stream=true --set limit=100000`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.files.cache import content_key
from generalist.data.stream.source import Record, Records
from generalist.data.tables.rows import value

NAMES = {"val": ("val", "validation", "valid", "dev")}


@dataclass
class Hub:
    """name: a set on the hub, a folder written by `save_to_disk`, or a format ("parquet", "csv", "json", "arrow",
    "imagefolder", "webdataset") with data_files={split: files}.

    config, revision: as in `datasets.load_dataset`. fields: {name in the record: column}, empty = all columns under
    their own names. label: the column of the answer, "label" in the record. split_names: {"val": "validation"}.
    limit: at most so many rows of a split, 0 = all; with stream=True only these are downloaded, once: a later opening
    with the same settings finds them (another revision is read anew).
    """

    name: str
    config: str = ""
    revision: str = ""
    data_files: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    label: str = "label"
    split_names: dict[str, str] = field(default_factory=dict)
    stream: bool = False
    limit: int = 0

    def open(self, split: str) -> Records:
        rows = self._load(split)
        columns = list(rows.features)
        for column in self.fields.values():
            if column not in columns:
                raise UserError(f"dataset {self.name}: no column {column!r}; {nearest(column, columns)}")
        info: dict[str, Any] = {"about": f"dataset {self.name}", "synthetic": False}
        names = getattr(rows.features.get(self.label), "names", None)
        if names:
            info["classes"] = list(names)
        return Records(HubRows(rows, self.fields or {c: c for c in columns}, self.label), info)

    def _load(self, split: str) -> Any:
        """The split as a `datasets.Dataset`, media undecoded."""
        try:
            import datasets
        except ImportError as error:
            raise UserError("Hugging Face data sets need datasets; pip install datasets") from error
        wanted = [self.split_names[split]] if split in self.split_names else NAMES.get(split, (split,))
        try:
            if Path(self.name, "dataset_dict.json").is_file() or Path(self.name, "dataset_info.json").is_file():
                found = datasets.load_from_disk(self.name)
                found = found if isinstance(found, dict) else {"train": found}
            else:
                found = datasets.load_dataset(
                    self.name,
                    self.config or None,
                    data_files=self.data_files or None,
                    revision=self.revision or None,
                    streaming=self.stream,
                )
        except (FileNotFoundError, ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise UserError(f"dataset {self.name}: cannot be opened ({str(error).splitlines()[0]})") from error
        chosen = next((name for name in wanted if name in found), None)
        if chosen is None:
            raise UserError(f"dataset {self.name}: no split {split!r}; {nearest(split, found)}")
        rows = found[chosen]
        if self.stream:
            rows = self._streamed(datasets, rows, chosen)
        elif self.limit:
            rows = rows.select(range(min(self.limit, len(rows))))
        for column, feature in rows.features.items():
            if isinstance(feature, datasets.Image | datasets.Audio):
                rows = rows.cast_column(column, type(feature)(decode=False))
        return rows

    def _streamed(self, datasets: Any, rows: Any, split: str) -> Any:
        """The first `limit` rows of a stream, kept as Arrow on disk by `datasets`' own cache."""
        if not self.limit:
            raise UserError(
                f"dataset {self.name}: stream=true needs limit=ROWS; without stream the whole set is downloaded once"
            )

        def read() -> Any:
            yield from rows.take(self.limit)

        # our own mark: `datasets` would hash the stream itself, which is another one in every process
        files = [f for held in self.data_files.values() for f in ([held] if isinstance(held, str) else held)]
        states = [f"{Path(f).stat().st_size}:{Path(f).stat().st_mtime_ns}" for f in files if Path(f).is_file()]
        settings = [self.name, self.config, self.revision, repr(self.data_files), split, str(self.limit)]
        mark = content_key(datasets.__version__, *settings, *states)
        return datasets.Dataset.from_generator(read, features=rows.features, fingerprint=mark)


class HubRows(Sequence[Record]):
    """Rows of a `datasets.Dataset` as records."""

    def __init__(self, rows: Any, fields: dict[str, str], label: str) -> None:
        self.rows, self.fields, self.label = rows, fields, label

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.rows[int(index)]
        record: Record = {"id": str(row.get("id", index))}
        record |= {name: value(row[column]) for name, column in self.fields.items()}
        if self.label in row:
            record["label"] = row[self.label]
        record["id"] = str(record["id"])
        return record
