"""Shards and the other sources: what is written is read, from near and far, and what is broken is named."""

import io
import threading
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import collate
from generalist.data.batch.types import Example, Span
from generalist.data.files import remote
from generalist.data.sources.folder import Folder
from generalist.data.sources.places import source_at
from generalist.data.sources.shards import Shards, expand
from generalist.data.sources.tabular import Tabular
from generalist.data.stream.raw import raw_batches
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Feed, Steps, loader
from generalist.data.tools.shard_writer import Plan, write_shard, write_split

COUNT = 53


class Made:
    """Records of every kind of value."""

    def __init__(self, count: int = COUNT, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __repr__(self) -> str:
        return f"Made({self.count}, {self.broken})"

    def open(self, split: str) -> Records:
        return Records([self.row(split, i) for i in range(self.count)], {"classes": ["a", "b", "c"], "n": np.int64(3)})

    def row(self, split: str, i: int) -> dict:
        from PIL import Image

        value = object() if i in self.broken else np.full((2, 3), i, dtype=np.float32)
        picture = Image.fromarray(np.full((5, 7, 3), i, dtype=np.uint8))
        return {
            "id": f"{split}/{i}",
            "array": value,
            "image": picture,
            "label": i % 3,
            "text": f"Wörter {i}",
            "row": {"age": i, "job": None},
            "sound": b"RIFF" + bytes([i]),
        }


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def written(tmp_path, cache) -> Path:
    write_split(Plan(Made(), "train", tmp_path / "out", per=10), workers=1)
    return tmp_path / "out"


class Server(ThreadingHTTPServer):
    """A folder over HTTP that fails as told; counts what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.failures, self.cut = folder, Counter(), {}, set()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0].lstrip("/")
        self.server.asked[path] += 1
        file = self.server.folder / path
        if self.server.failures.get(path, 0) > 0:
            self.server.failures[path] -= 1
            return self.send_error(503)
        if not file.is_file():
            return self.send_error(404)
        raw = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        if path in self.server.cut:
            self.server.cut.discard(path)
            raw = raw[: len(raw) // 2]
        return self.wfile.write(raw) and None

    def log_message(self, *words) -> None:
        pass


@pytest.fixture
def server(written):
    made = Server(written)
    yield made
    made.shutdown()
    made.server_close()


def same(record: dict, original: dict) -> bool:
    pixels = np.array_equal(np.asarray(record["image"]), np.asarray(original["image"]))
    rest = {k: v for k, v in record.items() if k not in ("array", "image")}
    return pixels and np.array_equal(record["array"], original["array"]) and rest == {k: original[k] for k in rest}


# --- writing and reading ---


def test_every_kind_of_value_comes_back_as_it_was(written):
    records = Shards(str(written)).open("train")
    originals = {r["id"]: r for r in Made().open("train").rows}
    assert len(records) == COUNT
    found = [records[i] for i in range(COUNT)]
    assert {r["id"] for r in found} == originals.keys()
    assert all(same(r, originals[r["id"]]) for r in found)
    assert records.info["classes"] == ["a", "b", "c"] and records.info["n"] == 3


def test_the_same_records_give_the_same_bytes_with_one_writer_or_two(tmp_path, cache):
    (tmp_path / "t.csv").write_text("text,n\n" + "".join(f"word {i},{i}\n" for i in range(COUNT)))
    source = Tabular(str(tmp_path / "t.csv"), val=0, test=0)
    one, two = (write_split(Plan(source, "train", tmp_path / str(n), per=10), workers=n) for n in (1, 2))
    assert [s["sha256"] for s in one["shardlist"]] == [s["sha256"] for s in two["shardlist"]]
    assert [s["nsamples"] for s in two["shardlist"]] == [10, 10, 10, 10, 10, 3]


def test_a_writer_that_was_killed_goes_on_with_the_shards_that_are_missing(tmp_path, cache):
    plan = Plan(Made(), "train", tmp_path / "out", per=10)
    records = Made().open("train")
    plan.folder.mkdir(parents=True)
    for at in (0, 3):
        write_shard(plan, records, at)
    (plan.folder / "000001.tar.partial").write_bytes(b"half a shard")
    before = {p.name: p.stat().st_mtime_ns for p in plan.folder.glob("*.tar")}
    write_split(plan)
    assert {n: (plan.folder / n).stat().st_mtime_ns for n in before} == before, "done shards are not written again"
    ids = sorted(r["id"] for r in (Shards(str(tmp_path / "out")).open("train")[i] for i in range(COUNT)))
    assert ids == sorted(f"train/{i}" for i in range(COUNT))


def test_another_plan_in_the_same_folder_is_refused_unless_it_may_overwrite(written):
    other = Plan(Made(), "train", written, per=7)
    with pytest.raises(UserError, match="--overwrite"):
        write_split(other)
    assert sum(s["nsamples"] for s in write_split(other, overwrite=True)["shardlist"]) == COUNT
    assert len(Shards(str(written)).open("train")) == COUNT


def test_records_that_cannot_be_stored_stop_the_writer_or_are_listed(tmp_path, cache):
    plan = Plan(Made(broken=(4, 9)), "train", tmp_path / "out", per=10)
    with pytest.raises(UserError, match=r"record (4|9): a object cannot be stored"):
        write_split(plan)
    index = write_split(Plan(Made(broken=(4, 9)), "train", tmp_path / "out", per=10, skip=True))
    assert len(index["skipped"]) == 2
    assert len(Shards(str(tmp_path / "out")).open("train")) == COUNT - 2


def test_webdataset_reads_our_shards_and_we_read_its(written, tmp_path, cache):
    import webdataset as wds

    urls = [str(p) for p in sorted((written / "train").glob("*.tar"))]
    theirs = list(wds.WebDataset(urls, shardshuffle=False).decode())
    assert sorted(s["json"]["id"] for s in theirs) == sorted(f"train/{i}" for i in range(COUNT))
    assert theirs[0]["array.npy"].shape == (2, 3)
    for shard in range(2):
        with wds.TarWriter(str(tmp_path / f"other-{shard}.tar")) as writer:
            for i in range(5):
                image = np.full((4, 6, 3), i, dtype=np.uint8)
                writer.write({"__key__": f"s{shard}/{i:03d}", "png": image, "txt": f"caption {i}", "cls": i})
    source = Shards(
        splits={"train": f"{tmp_path}/other-{{0..1}}.tar"}, fields={"image": "jpg;png", "text": "txt", "label": "cls"}
    )
    records = source.open("train")
    assert len(records) == 10
    assert sorted(records[7]) == ["id", "image", "label", "text"]
    assert records[7]["id"] == "s1/002" and records[7]["label"] == 2 and records[7]["text"] == "caption 2"
    assert np.asarray(records[7]["image"]).shape == (4, 6, 3)


# --- from afar ---


def test_shards_behind_a_server_are_fetched_once_checked_and_tried_again(server, cache, monkeypatch):
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    server.failures["train/000002.tar"] = 2
    server.cut.add("train/000004.tar")
    records = Shards(server.address, retries=3).open("train")
    assert {records[i]["id"] for i in range(COUNT)} == {f"train/{i}" for i in range(COUNT)}
    tars = {p: n for p, n in server.asked.items() if p.endswith(".tar")}
    assert tars == {f"train/{i:06d}.tar": 3 if i == 2 else 2 if i == 4 else 1 for i in range(6)}
    again = Shards(server.address).open("train")
    assert all(again[i] for i in range(COUNT))
    assert {p: n for p, n in server.asked.items() if p.endswith(".tar")} == tars, "read from the cache"


def test_a_server_that_stays_away_and_a_shard_that_is_not_there_end_in_one_line(server, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    with pytest.raises(UserError, match="404"):
        remote.fetch(f"{server.address}/train/none.tar", Path("unused"))
    assert waits == []
    server.failures["train/000000.tar"] = 99
    with pytest.raises(UserError, match="tried 3 times"):
        remote.fetch(f"{server.address}/train/000000.tar", Path("unused"), retries=2)
    assert waits == [1.0, 2.0]


def test_a_shard_with_another_checksum_is_refused(server, written):
    path = written / "train/000001.tar"
    raw = bytearray(path.read_bytes())
    raw[600] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match="checksum"):
        records = Shards(server.address).open("train")
        [records[i] for i in range(COUNT)]


def test_a_window_of_remote_shards_needs_no_more_cache_than_itself(server, cache):
    """The order keeps to two shards at a time: six shards through a cache of three, each fetched once."""
    size = max(p.stat().st_size for p in (server.folder / "train").glob("*.tar"))
    source = Shards(server.address, window=2, cache_gb=3.4 * size / 1e9)
    records = source.open("train")
    order = records.order.at(0, "t", 0, COUNT, 4)
    assert sorted(order) == list(range(COUNT))
    ids = {records[i]["id"] for i in order}
    assert len(ids) == COUNT
    assert all(n == 1 for p, n in server.asked.items() if p.endswith(".tar"))
    assert source.store().size() <= 3.4 * size + 20_000  # the small indexes come on top


def test_commands_and_object_stores_serve_shards_too(server, written, cache, monkeypatch):
    piped = Shards(splits={"train": f"pipe:cat {written}/train/{{000000..000005}}.tar"}).open("train")
    assert {piped[i]["id"] for i in range(COUNT)} == {f"train/{i}" for i in range(COUNT)}
    with pytest.raises(UserError, match="exit code 3"):
        remote.fetch("pipe:echo no luck >&2; exit 3", written / "x", retries=0)
    pytest.importorskip("obstore")
    server.folder = written.parent  # path-style: the bucket is the first folder
    for name, value in {
        "AWS_ENDPOINT_URL": server.address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "here",
    }.items():
        monkeypatch.setenv(name, value)
    stored = Shards("s3://out", cache=str(cache / "s3")).open("train")
    assert {stored[i]["id"] for i in range(COUNT)} == {f"train/{i}" for i in range(COUNT)}
    with pytest.raises(UserError, match="not in the store"):
        remote.fetch("s3://out/train/none.tar", written / "x", retries=0)


# --- the stream over shards ---


def example(record: dict, rng: torch.Generator | None) -> Example:
    array = torch.from_numpy(np.array(record["array"]))
    span = Span("x", {"x": array + torch.rand(array.shape, generator=rng)}, len(array)).ask([0], torch.tensor([0]))
    return Example([span], record=record["id"])


def steps(records: Records, rank: int = 0, world: int = 1) -> Steps:
    feed = Feed(records, example, partial(collate, "t", candidates="t"), 8)
    return Steps({"t": feed}, Schedule(["t"], [1.0], 0), 0, rank, world)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_over_shards_is_bit_identical(written, workers):
    records = Shards(str(written), window=2, lanes=2).open("train")
    full = [(b.records, b.inputs.data["x"]["x"].numpy().tobytes()) for b in loader(steps(records), 0, 40)]
    resumed = loader(steps(Shards(str(written), window=2, lanes=2).open("train")), 13, 40, workers=workers)
    assert [(b.records, b.inputs.data["x"]["x"].numpy().tobytes()) for b in resumed] == full[13:]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_raw_samples_read_by_threads_are_those_of_the_stream_and_go_on_anywhere(written, threads):
    records = Shards(str(written)).open("train")
    found = list(raw_batches(records, 8, 0, 9, seed=3, name="t", threads=threads))
    keys = [key for batch in found for key, _ in batch]
    rows = records.rows
    assert keys == [rows.raw(i)[0] for i in records.at(3, "t", 0, 72, 8)]
    assert sorted(keys[:COUNT]) == [rows.raw(i)[0] for i in range(COUNT)]
    assert found[0][0] == rows.raw(records.at(3, "t", 0, 1, 8)[0])
    assert any(value.startswith(b"RIFF") for value in found[0][0][1].values())
    assert list(raw_batches(records, 8, 5, 9, seed=3, name="t", threads=threads)) == found[5:]


def test_raw_samples_are_of_shards_and_a_broken_one_ends_in_its_line(written):
    with pytest.raises(UserError, match="raw samples are read from shards"):
        next(raw_batches(Made().open("train"), 8, 0, 1))
    records = Shards(str(written)).open("train")
    for path in sorted((written / "train").glob("*.tar")):
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="tar"):
        list(raw_batches(records, 8, 0, 9))


def test_an_epoch_over_shards_loses_and_repeats_nothing_when_two_ranks_become_four(written):
    records = Shards(str(written), window=2, lanes=4).open("train")
    seen = [r for s in range(4) for rank in range(2) for r in steps(records, rank, 2)[s].records]
    seen += [r for s in range(4, 7) for rank in range(4) for r in steps(records, rank, 4)[s].records]
    epoch = Counter(seen[:COUNT])
    assert len(epoch) == COUNT and set(epoch.values()) == {1}


# --- broken shards ---


def test_a_shard_that_is_cut_off_is_named(written):
    path = written / "train/000002.tar"
    path.write_bytes(path.read_bytes()[:4000])
    records = Shards(str(written)).open("train")
    with pytest.raises(UserError, match="4000 bytes came, the index says"):
        [records[i] for i in range(COUNT)]
    (written / "train/000002.tar.idx").unlink()
    with pytest.raises(UserError, match=r"000002\.tar"):
        [Shards(str(written)).open("train")[i] for i in range(COUNT)]


def test_pickles_and_members_that_are_not_what_they_say_are_refused(tmp_path, cache):
    from generalist.data.files.tar import write_tar

    write_tar(tmp_path / "x.tar", [("a", {"pkl": b"\x80"}), ("b", {"png": b"no picture"}), ("c", {"npy": b"no array"})])
    records = Shards(splits={"train": str(tmp_path / "x.tar")}).open("train")
    for number, message in enumerate(["can run code", "not a .png", "not a .npy"]):
        with pytest.raises(UserError, match=message):
            records[number]


def test_wrong_places_end_in_one_line_that_helps(tmp_path, written):
    with pytest.raises(UserError, match="did you mean 'train'"):
        Shards(str(written)).open("trein")
    with pytest.raises(UserError, match="no file matches"):
        Shards(splits={"train": str(tmp_path / "*.tar")}).open("train")
    with pytest.raises(UserError, match="either the path"):
        Shards()
    with pytest.raises(UserError, match="is no data"):
        source_at(str(tmp_path / "nothing"))
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]


def test_a_picture_keeps_the_bytes_it_was_stored_with(tmp_path, cache):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(buffer, format="JPEG")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(buffer.getvalue())
    write_split(Plan(Folder(str(tmp_path / "a"), labelled=False, val=0, test=0), "train", tmp_path / "one"))
    write_split(Plan(Shards(str(tmp_path / "one")), "train", tmp_path / "two"))
    assert Shards(str(tmp_path / "two")).open("train")[0]["image"].encoded == buffer.getvalue()
