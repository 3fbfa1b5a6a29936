"""Files that other files name, and sets as the hub stores them: paths, captions, class names, shards of bytes."""

import csv
import io
import json
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.annotations.captions import CocoCaptions
from generalist.data.sources.places import source_at
from generalist.data.sources.shards import Shards
from generalist.data.sources.tabular import Tabular

COUNT = 12
WHOLE = {"val": 0.0, "test": 0.0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), 20 * number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pairs(folder, written="img/é {}.png", stored="img/é {}.png"):
    (folder / "img").mkdir(parents=True)
    rows = []
    for i in range(COUNT):
        (folder / stored.format(i)).write_bytes(png(i))
        captions = [f"picture number {i}", f"the {i}th", f"no. {i}"]
        row = {
            "image": written.format(i),
            "caption": captions[0],
            "captions": captions,
            "label": "even" if i % 2 else "odd",
        }
        rows.append(row)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "pairs.json").write_text(json.dumps(rows))
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "caption", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.json", "pairs.csv"])
def test_paths_are_relative_to_the_file_that_names_them_and_shards_hold_the_bytes(tmp_path, name, capsys):
    folder = pairs(tmp_path / "set")
    records = source_at(str(folder / name), WHOLE, answer="label").open("train")
    assert [r["image"] for r in records.rows] == [folder / f"img/é {i}.png" for i in range(COUNT)]
    assert "image" not in records[0]["row"]
    out = str(tmp_path / "shards")
    assert (
        main(["data", "shard", str(folder / name), out, "--set", "val=0", "--set", "test=0", "--in-order", "--quiet"])
        == 0
    )
    written = Shards(out).open("train")
    for i in range(COUNT):
        assert np.asarray(written[i]["image"]).mean() == 20 * i and written[i]["image"].encoded == png(i)
        assert name.endswith("csv") or written[i]["captions"][2] == f"no. {i}"
    capsys.readouterr()
    assert main(["data", "validate", out, "--quiet"]) == 0
    capsys.readouterr()
    (folder / "img/é 3.png").unlink()
    (folder / "img/é 4.png").write_bytes(png(4)[:45])
    assert main(["data", "validate", str(folder / name), "--quiet", "--set", "val=0", "--set", "test=0"]) == 1
    said = capsys.readouterr().out
    assert "10 of 12 samples read" in said and "é 3.png (no such file)" in said and "is no whole picture" in said
    assert main(["data", "shard", str(folder / name), out + "2", "--quiet"]) == 2


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        (normalize("NFC", "img/é {}.png"), normalize("NFD", "img/é {}.png")),
        (normalize("NFD", "img/é {}.png"), normalize("NFC", "img/é {}.png")),
        ("img\\🦊 {}.png", "img/🦊 {}.png"),
    ],
)
def test_names_written_in_another_way_are_found(tmp_path, written, stored):
    folder = pairs(tmp_path / "set", written, stored)
    records = Tabular(str(folder / "pairs.jsonl"), **WHOLE).open("train")
    assert all(r["image"].is_file() for r in records.rows)


def test_texts_that_only_look_like_files_stay_texts(tmp_path):
    rows = [{"title": f"{i}.jpg", "n": i, "about": f"see a.png and {i}"} for i in range(COUNT)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    record = Tabular(str(tmp_path / "t.jsonl"), **WHOLE).open("train")[0]
    assert record["title"] == "0.jpg" and record["about"] == "see a.png and 0"


def hub_set(folder, names):
    datasets = pytest.importorskip("datasets")
    sf = pytest.importorskip("soundfile")

    def wav(i):
        buffer = io.BytesIO()
        sf.write(buffer, 0.3 * np.sin(np.arange(800) * (0.1 + i * 0.01)), 8000, format="WAV")
        return {"bytes": buffer.getvalue(), "path": f"{i}.wav"}

    held = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "audio": held,
            "label": datasets.ClassLabel(names=names),
            "captions": datasets.Sequence(datasets.Value("string")),
        }
    )
    rows = [
        {"image": {"bytes": png(i), "path": None}, "audio": wav(i), "label": i % 2, "captions": [f"a {i}", "an animal"]}
        for i in range(COUNT)
    ]
    made = datasets.Dataset.from_list(rows, features=features)
    made.to_parquet(str(folder / "train.parquet"))
    made.save_to_disk(str(folder / "disk"))


@pytest.mark.parametrize("names", [["zebra", "ant"], ["1", "0"]])
def test_parquet_of_the_hub_has_its_names_sounds_and_pictures_in_every_form(tmp_path, names, capsys):
    hub_set(tmp_path, names)
    table = source_at(str(tmp_path / "train.parquet"), WHOLE).open("train")
    words = ["--quiet", "--in-order", "--splits", "train"]
    for place in ("train.parquet", "disk"):
        more = ["--set", "val=0", "--set", "test=0"] if place != "disk" else []
        assert main(["data", "shard", str(tmp_path / place), str(tmp_path / f"{place}-shards"), *words, *more]) == 0
    sets = [table, source_at(str(tmp_path / "disk")).open("train")]
    sets += [Shards(str(tmp_path / f"{place}-shards")).open("train") for place in ("train.parquet", "disk")]
    for records in sets:
        assert records.info["classes"] == names and len(records) == COUNT
        for i in range(COUNT):
            assert records[i]["label"] == i % 2 and records[i]["captions"] == [f"a {i}", "an animal"]
            assert np.asarray(records[i]["image"]).mean() == 20 * i and records[i]["audio"][:4] == b"RIFF"
    assert set(table[0]["row"]) <= {"captions"}
    capsys.readouterr()
    assert main(["data", "stats", str(tmp_path / "train.parquet"), "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["train"]
    assert set(found["classes"]) == set(names) and found["measures"]["audio: seconds"]["median"] == 0.1


def test_classes_given_in_another_order_and_labels_that_are_none(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"x": datasets.Value("float32"), "kind": datasets.ClassLabel(names=["b", "a"])})
    rows = [{"x": float(i), "kind": [0, 1, -1][i % 3]} for i in range(COUNT)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "t.parquet"))
    path = str(tmp_path / "t.parquet")
    assert [r["label"] for r in Tabular(path, **WHOLE).open("train").rows[:3]] == [0, 1, None]
    given = Tabular(path, classes=["a", "b"], label="kind", **WHOLE).open("train")
    assert [r["label"] for r in given.rows[:3]] == [1, 0, None] and given.info["classes"] == ["a", "b"]


def test_categories_keep_their_order_and_dates_go_into_shards(tmp_path):
    import pandas as pd

    kinds = pd.Categorical(["yes", "no"] * 6, categories=["yes", "no", "never"])
    when = pd.date_range("2024-01-01", periods=COUNT, tz="Asia/Tokyo")
    pd.DataFrame({"x": np.arange(COUNT) / 7, "when": when, "label": kinds}).to_parquet(tmp_path / "c.parquet")
    records = Tabular(str(tmp_path / "c.parquet"), label="label", **WHOLE).open("train")
    assert records.info["classes"] == ["yes", "no", "never"] and [r["label"] for r in records.rows[:2]] == [0, 1]
    words = ["--set", "val=0", "--set", "test=0", "--set", "label=label", "--in-order", "--quiet"]
    assert main(["data", "shard", str(tmp_path / "c.parquet"), str(tmp_path / "s"), *words]) == 0
    assert Shards(str(tmp_path / "s")).open("train")[1]["when"] == "2024-01-02T00:00:00+09:00"


def test_captions_of_coco_are_found_and_sharded(tmp_path):
    folder = pairs(tmp_path / "coco", stored="img/{}.png")
    images = [{"id": i, "file_name": f"/data/upload/1/{i}.png"} for i in range(COUNT)]
    (folder / "images").mkdir()
    for i in range(COUNT):
        (folder / f"images/{i}.png").write_bytes(png(i))
    notes = [{"image_id": str(i), "caption": f"caption {i} {k}"} for i in range(COUNT) for k in range(2)]
    (folder / "captions_train.json").write_text(json.dumps({"images": images, "annotations": notes}))
    records = CocoCaptions(str(folder)).open("train")
    assert records[3]["image"] == folder / "images/3.png" and records[3]["captions"] == ["caption 3 0", "caption 3 1"]
    words = ["data", "shard", f"captions:{folder}", str(tmp_path / "s"), "--splits", "train", "--in-order", "--quiet"]
    assert main(words) == 0
    assert Shards(str(tmp_path / "s")).open("train")[3]["image"].encoded == png(3)
    images.append({"id": 99, "file_name": "/other/3.png"})
    (folder / "captions_train.json").write_text(json.dumps({"images": images, "annotations": notes}))
    with pytest.raises(UserError, match="are both found only as"):
        CocoCaptions(str(folder)).open("train")
