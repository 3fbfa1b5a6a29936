"""Folders, tables and Hugging Face sets as sources, and one word that finds the right one."""

from pathlib import Path

import numpy as np
import pytest

from data.embedded import Embedded
from data.errors import UserError
from data.folder import Folder
from data.hub import Hub
from data.places import source_at
from data.shards import Shards
from data.tabular import Tabular


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
