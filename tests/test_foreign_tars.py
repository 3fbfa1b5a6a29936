"""Shards as people's own scripts write them: relative, unsorted, dotted, doubled, with two ends, with class names."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.base.errors import Unfinished, UserError
from generalist.data.sources.places import source_at
from generalist.data.sources.shards import Shards
from generalist.data.tools.check import check

COUNT = 8


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def sample(key: str, i: int, picture: str = "jpg") -> list[tuple[str, bytes]]:
    return [(f"{key}.{picture}", jpeg(i)), (f"{key}.txt", f"caption {i}".encode()), (f"{key}.cls", str(i % 2).encode())]


def write(path, members) -> None:
    with tarfile.open(path, "w") as archive:
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def by_kind(members):
    return sorted(members, key=lambda m: m[0].rsplit(".", 1)[1])


def every(key: str, **how):
    return [m for i in range(COUNT) for m in sample(key.format(i=i, half=i // 2, odd=i % 2), i, **how)]


@pytest.mark.parametrize(
    "members",
    [
        every("{i:04d}"),
        every("{i:04d}", picture="JPG"),
        by_kind(every("{i:04d}")),
        by_kind(every("img_v1.{i:04d}")),
        every("img_v1.{i:04d}"),
        every("photo.final.{i}"),
        every("clip_{half}.{odd}s"),
        every("talk.{i}.5s"),
        every("./data/{i:04d}"),
        every("part.{odd}/{i:04d}"),
        [
            (f"{i:03d}x.{e}", raw)
            for i in range(COUNT)
            for e, raw in (("jpg", jpeg(i)), ("txt", f"caption {i}".encode()))
        ]
        + [(f"{i:03d}x.cls", str(i % 2).encode()) for i in reversed(range(COUNT))],
        every("d.v/wörter 🦊 {i}"),
    ],
)
def test_every_way_of_writing_eight_samples_gives_eight_whole_samples(members):
    write("some.tar", members)
    records = Shards(splits={"train": "some.tar"}).open("train")
    assert len(records) == COUNT
    for i in range(COUNT):
        record = records[i]
        number = int(record["txt"].removeprefix("caption "))
        assert record["cls"] == number % 2 and abs(np.asarray(record["jpg"]).mean() - 20 * number) < 2
    assert {records[i]["txt"] for i in range(COUNT)} == {f"caption {i}" for i in range(COUNT)}


def test_fields_with_two_parts_stay_fields():
    write("pairs.tar", [(f"{i}.{side}.jpg", jpeg(i)) for i in range(4) for side in ("left", "right")])
    records = Shards(splits={"train": "pairs.tar"}).open("train")
    assert len(records) == 4 and set(records[0]) == {"id", "left", "right"}


@pytest.mark.parametrize(("names", "expected"), [(["cat", "dog\n"], ["cat", "dog"]), (["007", "12"], ["007", 12])])
def test_classes_by_name_are_names(names, expected):
    write("named.tar", [(f"{i}.cls", name.encode()) for i, name in enumerate(names)])
    assert [r["cls"] for r in Shards(splits={"train": "named.tar"}).open("train").rows] == expected


@pytest.mark.parametrize("gap", [0, 1, 40])
def test_samples_behind_the_end_of_a_first_archive_are_read(gap):
    write("a.tar", every("{i:04d}")[:12])
    write("b.tar", every("{i:04d}")[12:])
    with open("a.tar", "rb") as a, open("b.tar", "rb") as b, open("both.tar", "wb") as out:
        out.write(a.read() + bytes(512 * gap) + b.read())
    records = Shards(splits={"train": "both.tar"}).open("train")
    assert [records[i]["txt"] for i in range(len(records))] == [f"caption {i}" for i in range(COUNT)]
    with open("both.tar", "ab") as out:
        out.write(b"x" * 512)
    records = Shards(splits={"train": "both.tar"}).open("train")
    report, _ = check(records, "train")
    assert report.read == COUNT - 1 and not report.valid, "the rest is no archive, and that is said"


def test_the_same_keys_twice_stay_samples_of_their_own_and_are_named():
    write("a.tar", every("{i:04d}"))
    write("b.tar", [(name, raw + b" again" if name.endswith("txt") else raw) for name, raw in every("{i:04d}")])
    with open("a.tar", "rb") as a, open("b.tar", "rb") as b, open("both.tar", "wb") as out:
        out.write(a.read() + b.read())
    records = Shards(splits={"train": "both.tar"}).open("train")
    texts = [f"caption {i}" for i in range(COUNT)]
    assert [records[i]["txt"] for i in range(2 * COUNT)] == texts + [f"{t} again" for t in texts]
    report, _ = check(records, "train")
    assert len(report.problems["same id"]) == COUNT


def test_samples_without_some_members_are_counted(capsys):
    write("half.tar", [m for i in range(COUNT) for m in sample(str(i), i)[: 3 if i % 2 else 1]])
    assert main(["data", "validate", "half.tar", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "txt: 4 of 8 samples lack it" in out and "cls: 4 of 8 samples lack it" in out


def test_folders_of_tars_and_what_is_no_shard(here, tmp_path):
    for split in ("Train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
        write(tmp_path / "set" / split / "0.tar", every("{i}"))
    assert [len(source_at(str(tmp_path / "set")).open(split)) for split in ("train", "val")] == [COUNT, COUNT]
    with pytest.raises(UserError, match="unpack it"):
        source_at("some.tar.gz")


def test_what_an_interrupted_writing_leaves_is_not_called_valid(tmp_path, capsys):
    out = tmp_path / "shards"
    words = ["data", "shard", "embedded:wine", str(out), "--per", "30", "--quiet"]
    assert main(words) == 0
    (out / "train" / "000009.tar.partial").write_bytes(b"half")
    assert main(["data", "validate", str(out), "--quiet"]) == 1
    assert "left by a writing that was interrupted" in capsys.readouterr().out
    (out / "val" / "index.json").unlink()
    assert main(["data", "validate", str(out), "--quiet"]) == 2
    assert main(["data", "stats", str(out), "--quiet"]) == 2
    for split in ("train", "test"):
        (out / split / "index.json").unlink()
    with pytest.raises(Unfinished):
        source_at(str(out)).open("train")
    assert main(["data", "validate", str(out), "--quiet"]) == 2
    assert capsys.readouterr().err.count("writing was interrupted") == 3
    (out / "train" / "000009.tar.partial").unlink()
    assert main(words) == 0
    assert main(["data", "validate", str(out), "--quiet"]) == 0
