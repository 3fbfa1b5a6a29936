"""Folders, tables and Hugging Face sets as sources, and one word that finds the right one."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import collate
from generalist.data.batch.types import Example, Span
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.folder import Folder
from generalist.data.sources.hub import Hub
from generalist.data.sources.places import source_at
from generalist.data.sources.shards import Shards
from generalist.data.sources.tabular import Tabular
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Feed, Steps, loader


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))


def save_picture(path: Path, value: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), value, dtype=np.uint8)).save(path)


def test_folders_by_class_are_split_by_name_or_as_they_lie(tmp_path):
    for i in range(40):
        save_picture(tmp_path / "all" / ("cat" if i % 2 else "dog") / f"{i}.png", i)
    parts = {split: Folder(str(tmp_path / "all")).open(split) for split in ("train", "val", "test")}
    ids = [r["id"] for records in parts.values() for r in records.rows]
    assert sorted(ids) == sorted(f"{'cat' if i % 2 else 'dog'}/{i}.png" for i in range(40))
    assert parts["train"].info["classes"] == ["cat", "dog"]
    assert all(r["label"] == ["cat", "dog"].index(r["class"]) for r in parts["train"].rows)
    save_picture(tmp_path / "own/train/cat/a.png", 1)
    save_picture(tmp_path / "own/validation/dog/b.png", 2)
    (tmp_path / "own/validation/dog/b.txt").write_text("a dog\n")
    found = Folder(str(tmp_path / "own")).open("val")
    assert [(r["label"], r["text"]) for r in found.rows] == [(1, "a dog")]
    with pytest.raises(UserError, match="no split 'test'"):
        Folder(str(tmp_path / "own")).open("test")


def test_tables_from_files_and_frames_give_rows_and_class_indices(tmp_path):
    import pandas as pd

    pl = pytest.importorskip("polars")

    frame = pd.DataFrame(
        {"key": list("abcdefgh") * 5, "x": range(40), "job": ["miner", None] * 20, "y": ["no", "yes"] * 20}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    options = {"label": "y", "drop": ["key"]}
    sources = [Tabular(str(tmp_path / f"t.{e}"), **options) for e in ("csv", "parquet", "jsonl")]
    sources += [Tabular(frame=f, **options) for f in (frame, pl.from_pandas(frame))]
    opened = [
        [s.open(split).rows[i] for split in ("train", "val", "test") for i in range(len(s.open(split)))]
        for s in sources
    ]
    assert len(opened[0]) == 40
    assert all(rows == opened[0] for rows in opened[1:])
    row = next(r for r in opened[0] if r["x"] == 3)
    assert row["row"] == {"x": 3, "job": None} and row["label"] == 1 and row["id"] == "3"
    assert sources[0].open("train").info["classes"] == ["no", "yes"]
    with pytest.raises(UserError, match="did you mean 'y'"):
        Tabular(str(tmp_path / "t.csv"), label="yy").open("train")


def test_datasets_from_parquet_and_disk_are_read_by_number(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["low", "high"])}
    )
    made = datasets.Dataset.from_dict(
        {"text": [f"t{i}" for i in range(30)], "label": [i % 2 for i in range(30)]}, features
    )
    made.to_parquet(tmp_path / "train.parquet")
    datasets.DatasetDict({"train": made, "validation": made.select(range(4))}).save_to_disk(tmp_path / "disk")
    parquet = Hub("parquet", data_files={"train": str(tmp_path / "train.parquet")}, fields={"words": "text"}).open(
        "train"
    )
    assert parquet[7]["words"] == "t7" and parquet[7]["label"] == 1 and parquet.info["classes"] == ["low", "high"]
    disk = Hub(str(tmp_path / "disk"))
    assert len(disk.open("val")) == 4 and disk.open("train")[9]["text"] == "t9"
    streamed = Hub("parquet", data_files={"train": str(tmp_path / "train.parquet")}, stream=True, limit=5).open("train")
    assert [r["text"] for r in (streamed[i] for i in range(5))] == [f"t{i}" for i in range(5)] and len(streamed) == 5


def streamed_steps(folder: Path) -> Steps:
    """A stream of the first 45 rows of a set, opened as a run does it."""
    records = Hub("parquet", data_files={"train": str(folder / "t.parquet")}, stream=True, limit=45).open("train")

    def example(record, rng):
        noise = torch.rand(2, 3, generator=rng)
        span = Span("x", {"x": noise + record["n"]}, 2).ask([0], torch.tensor([record["label"]]))
        return Example([span], record=record["id"])

    feed = Feed(records, example, partial(collate, "t", candidates="t"), 4)
    return Steps({"t": feed}, Schedule(["t"], [1.0], 3), 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_set_is_fetched_once_and_resumes_bit_for_bit_with_nothing_lost(tmp_path, monkeypatch, workers):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    made = {"n": [float(i) for i in range(90)], "label": [i % 3 for i in range(90)]}
    datasets.Dataset.from_dict(made).to_parquet(tmp_path / "t.parquet")
    fetched = []
    take = datasets.IterableDataset.take
    monkeypatch.setattr(datasets.IterableDataset, "take", lambda self, n: fetched.append(n) or take(self, n))

    def content(batch):
        return batch.records, batch.inputs.data["x"]["x"].numpy().tobytes()

    whole = [content(batch) for batch in loader(streamed_steps(tmp_path), 0, 60)]
    resumed = [content(batch) for batch in loader(streamed_steps(tmp_path), 17, 60, workers)]
    assert resumed == whole[17:]
    assert fetched == [45], "the second opening finds what the first has fetched"
    seen = [record for records, _ in whole for record in records]
    for epoch in range(5):
        assert sorted(map(int, seen[45 * epoch : 45 * (epoch + 1)])) == list(range(45))
    with pytest.raises(UserError, match="limit=ROWS"):
        Hub("parquet", data_files={"train": str(tmp_path / "t.parquet")}, stream=True).open("train")


def test_the_command_that_the_hub_module_names_writes_a_stream_into_shards(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(30)]}).to_parquet(tmp_path / "t.parquet")
    files = json.dumps({"train": str(tmp_path / "t.parquet")})
    words = ["--set", f"data_files={files}", "--set", "stream=true", "--set", "limit=7", "--splits", "train"]
    assert main(["data", "shard", "hub:parquet", str(tmp_path / "out"), *words, "--quiet"]) == 0
    assert sorted(r["text"] for r in Shards(str(tmp_path / "out")).open("train").rows) == [f"t{i}" for i in range(7)]


def test_pictures_in_parquet_become_pictures(shared):
    records = Tabular(splits={"train": str(shared / "data/cifar10_subset/train.parquet")}).open("train")
    row = records[0]
    pictures = [v for v in row.values() if hasattr(v, "convert") or isinstance(v, bytes | list)]
    assert pictures, f"no picture among {list(row)}"


def test_one_word_finds_the_source(tmp_path):
    (tmp_path / "shards/train").mkdir(parents=True)
    (tmp_path / "shards/train/index.json").write_text("{}")
    save_picture(tmp_path / "pictures/a/1.png", 1)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    kinds = {
        str(tmp_path / "shards"): Shards,
        "http://host/x": Shards,
        "x-{0..3}.tar": Shards,
        str(tmp_path / "pictures"): Folder,
        str(tmp_path / "t.csv"): Tabular,
        "hub:mnist": Hub,
        "embedded:digits": Embedded,
    }
    assert {place: type(source_at(place)) for place in kinds} == kinds
    assert source_at(str(tmp_path / "t.csv"), {"val": "0.3", "drop": '["a"]', "label": "b"}).drop == ["a"]
    with pytest.raises(UserError, match="did you mean 'label'"):
        source_at(str(tmp_path / "t.csv"), {"lable": "b"})
