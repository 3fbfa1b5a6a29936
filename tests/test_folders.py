"""Folders as they are downloaded and kept: split names in any spelling, junk, other layouts, odd names."""

import json
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.folder import Folder
from generalist.data.sources.places import source_at


def save(path, grey: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), grey, np.uint8)).save(path)


def fill(folder, splits, classes=("dark", "light"), count=4):
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for i in range(count):
                save(folder / split / name / f"{i}.png", (100 * c + 10 * i + s) % 256)


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Val", "Test"),
        ("TRAIN", "VALIDATION", "TEST"),
        ("training", "valid", "testing"),
        ("training_set", "dev", "test_set"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_splits_are_known_in_any_usual_spelling(tmp_path, names):
    fill(tmp_path, names)
    for split, name in zip(("train", "val", "test"), names, strict=True):
        records = Folder(str(tmp_path)).open(split)
        assert records.info["classes"] == ["dark", "light"] and len(records) == 8
        assert records[0]["image"] == tmp_path / name / "dark" / "0.png" and records[0]["id"] == "dark/0.png"


def test_training_files_validate_where_the_folder_has_no_validation(tmp_path):
    fill(tmp_path, ["Train"], count=30)
    fill(tmp_path, ["Test"], count=4)
    parts = {split: Folder(str(tmp_path), holdout=0.25).open(split) for split in ("train", "val", "test")}
    held = {split: {records[i]["id"] for i in range(len(records))} for split, records in parts.items()}
    assert not held["train"] & held["val"] and len(held["train"]) + len(held["val"]) == 60
    assert 5 <= len(held["val"]) <= 25 and len(held["test"]) == 8
    assert all("notes" not in part.info for part in parts.values())  # what another split holds is not left out
    with pytest.raises(UserError, match="no split 'val'"):
        Folder(str(tmp_path)).open("val")


def test_a_class_called_train_is_a_class_and_one_outer_folder_is_entered(tmp_path):
    fill(tmp_path / "traffic", [""], ["Bus", "Car", "Train"], 12)
    assert Folder(str(tmp_path / "traffic")).open("train").info["classes"] == ["Bus", "Car", "Train"]
    fill(tmp_path / "zip" / "zip", ["Train", "Test"])
    assert Folder(str(tmp_path / "zip")).open("test").info["classes"] == ["dark", "light"]
    fill(tmp_path / "two", ["val", "Validation", "train"])
    with pytest.raises(UserError, match="both val"):
        Folder(str(tmp_path / "two")).open("val")


def test_what_is_no_picture_is_left_out_and_counted(tmp_path, capsys):
    fill(tmp_path, ["train", "test"])
    junk = ["train/dark/Thumbs.db", "train/light/desktop.ini", "train/metadata.csv", "train/dark/.DS_Store"]
    junk += [
        "train/dark/._0.png",
        "train/__MACOSX/dark/._0.png",
        "train/light/0.xml",
        "train/light/copy.png.crdownload",
    ]
    for name in junk:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "train/dark/0.txt").write_text("a caption")
    records = Folder(str(tmp_path)).open("train")
    assert len(records) == 8 and records.info["classes"] == ["dark", "light"]
    assert records[0]["text"] == "a caption"
    assert len(junk) == 8 and records.info["notes"][0].startswith("8 files of other kinds left out: ")
    assert "notes" not in Folder(str(tmp_path)).open("test").info
    assert main(["data", "stats", str(tmp_path), "--quiet"]) == 0
    assert main(["data", "validate", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out.count("8 files of other kinds left out") == 2


def test_the_kind_of_files_is_what_the_field_says_or_the_most(tmp_path):
    fill(tmp_path, [""], ["a"], 3)
    for i in range(4):
        (tmp_path / "a" / f"{i}.wav").write_bytes(b"RIFF")
    whole = {"val": 0.0, "test": 0.0}
    ends = [Folder(str(tmp_path), name, **whole).open("train")[0][name].suffix for name in ("image", "audio", "thing")]
    assert ends == [".png", ".wav", ".wav"]
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "a.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"only 1 \.parquet; a \.parquet file holds many samples"):
        Folder(str(tmp_path / "sheets")).open("train")
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.ply").write_bytes(b"")
    assert len(Folder(str(tmp_path / "points"), "points", **whole).open("train")) == 1


@pytest.mark.parametrize("table", ["data/chunk-000/file-000.parquet", "data/chunk-000/episode_000000.parquet"])
def test_a_robots_set_is_refused_by_its_name(tmp_path, table, capsys):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps({"fps": 10, "features": {}}))
    (tmp_path / table).parent.mkdir(parents=True)
    (tmp_path / table).write_bytes(b"")
    save(tmp_path / "videos/frame.png")
    for command in ("stats", "validate"):
        assert main(["data", command, str(tmp_path), "--quiet"]) == 2
        assert "LeRobot" in capsys.readouterr().err
    with pytest.raises(UserError, match=table):
        source_at(str(tmp_path)).open("train")


def test_names_with_accents_spaces_and_signs_are_one_class_however_they_are_stored(tmp_path):
    name = "café 🦊"
    for split, form in (("train", "NFC"), ("test", "NFD")):
        fill(tmp_path, [split], [normalize(form, name), "b c"], 2)
    train, test = (Folder(str(tmp_path)).open(split) for split in ("train", "test"))
    assert train.info["classes"] == test.info["classes"] == ["b c", normalize("NFC", name)]
    assert [r["label"] for r in test.rows] == [0, 0, 1, 1] and all(r["image"].is_file() for r in test.rows)
    parts = []
    for form in ("NFC", "NFD"):
        fill(tmp_path / form, [""], [normalize(form, "é")], 30)
        parts.append([r["id"] for r in Folder(str(tmp_path / form)).open("train").rows])
    assert parts[0] == parts[1]
