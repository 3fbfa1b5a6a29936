"""A whole run over data that is broken in every way: counted by task, listed, left out, and stopped above the rate."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from tiny import tiny

from generalist.data.base.errors import UserError
from generalist.data.files import remote
from generalist.data.files.tar import scan, write_tar
from generalist.data.sources.shards import Shards
from generalist.recipe.recipe import Recipe
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify
from generalist.train.faults import bad_samples

CLASSES = ["dark", "light"]


def jpeg(light: int, number: int) -> bytes:
    grey = np.random.default_rng(number).integers(0, 90, (8, 8, 3)) + 150 * light
    buffer = io.BytesIO()
    Picture.fromarray(grey.astype(np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def samples(shard: int, count: int = 12) -> list[tuple[str, dict[str, bytes]]]:
    return [(f"{shard}-{i:02d}", {"cls": b"%d" % (i % 2), "jpg": jpeg(i % 2, 100 * shard + i)}) for i in range(count)]


@pytest.fixture
def broken(tmp_path, monkeypatch) -> Path:
    """Seven shards: three whole ones (one with two bad pictures in it), and four that are broken as wholes."""
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(7):
        held = samples(shard)
        if shard == 1:
            held[3][1]["jpg"] = b"no picture at all"
            held[4][1]["jpg"] = held[4][1]["jpg"][:-200]
        write_tar(folder / f"{shard}.tar", held)
    raw = (folder / "3.tar").read_bytes()
    (folder / "3.tar").write_bytes(raw[: len(raw) // 2 + 700])
    (folder / "4.tar").write_bytes(b"")
    (folder / "5.tar").write_bytes(gzip.compress((folder / "5.tar").read_bytes())[:3000])
    raw = bytearray((folder / "6.tar").read_bytes())
    header = int(scan(folder / "6.tar").offset[5].min()) - 512
    raw[header : header + 512] = bytes(range(256)) * 2
    (folder / "6.tar").write_bytes(bytes(raw))
    write_tar(tmp_path / "whole.tar", samples(9))
    return folder


def recipe(train: str, whole: Path, **keys: Any) -> Recipe:
    made = tiny(steps=30, **keys)
    fields = {"image": "jpg", "label": "cls"}
    splits = {"train": train, "val": str(whole), "test": str(whole)}
    source = Shards(splits=splits, fields=fields, classes=CLASSES, retries=3)
    made.tasks[0] = Classify(name="shades", source=source, inputs={"image": "image"}, batch=8)
    return made


def listed(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "bad_samples.jsonl").read_text().splitlines()]


def test_every_broken_shard_and_sample_is_counted_listed_and_left_out_and_the_run_ends(broken, tmp_path):
    made = recipe(str(broken / "{0..6}.tar"), tmp_path / "whole.tar", faults__bad_rate=0.5)
    metrics = train_run(made, tmp_path / "run", quiet=True)
    assert set(metrics["tasks"]) == {"shades", "wine"}
    assert metrics["tasks"]["shades"]["value"] >= 0.5
    found = listed(tmp_path / "run")
    counts = bad_samples(tmp_path / "run")
    assert set(counts) == {"shades"} and counts["shades"] == len(found)
    kinds = {
        r"3.tar: .*ends within|3.tar: not a whole": 0,
        r"4.tar: not a whole tar archive": 0,
        r"5.tar: not a whole tar archive": 0,
        r"6.tar: not a whole tar archive": 0,
        r"member .jpg: 17 bytes that are not a .jpg": 0,
        r"(?i)truncated": 0,  # a picture that ends early
    }
    for line in found:
        matches = [kind for kind in kinds if re.search(kind, line["error"])]
        assert matches, line
        kinds[matches[0]] += 1
    assert all(kinds.values()), kinds
    assert all(line["step"] < 30 and line["record"] for line in found)


def test_broken_data_above_the_rate_stops_the_run_and_names_task_and_first_error(broken, tmp_path):
    made = recipe(str(broken / "{3..6}.tar"), tmp_path / "whole.tar", faults__bad_rate=0.05)
    with pytest.raises(UserError, match=r"cannot be decoded, more than faults.bad_rate=0.05.*task shades"):
        train_run(made, tmp_path / "run", quiet=True)
    assert listed(tmp_path / "run")


def test_shards_of_which_nothing_can_be_read_do_not_start(broken, tmp_path):
    with pytest.raises(UserError, match=r"4\.tar: not a whole tar archive"):
        train_run(recipe(str(broken / "4.tar"), tmp_path / "whole.tar"), tmp_path / "run", quiet=True)


def test_whole_samples_before_the_break_are_kept_and_a_strict_scan_refuses(broken):
    assert len(scan(broken / "0.tar")) == scan(broken / "0.tar").whole == 12
    for name in ("3.tar", "4.tar", "5.tar", "6.tar"):
        with pytest.raises(UserError, match=name):
            scan(broken / name)
        index = scan(broken / name, lenient=True)
        assert len(index) == index.whole + 1
    assert 0 < scan(broken / "3.tar", lenient=True).whole < 12


# --- from afar ---


class Handler(BaseHTTPRequestHandler):
    """A folder that answers 503, or cuts its answer short, as often as `failures` says."""

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        raw = (self.server.folder / name).read_bytes()
        left = self.server.failures[name]
        self.server.failures[name] = max(0, left - 1)
        if left and left % 2:
            self.send_error(503)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2] if left else raw)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(broken) -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.folder, made.asked, made.failures = broken, Counter(), Counter()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_a_run_over_a_server_that_fails_at_first_waits_longer_each_time_and_loses_no_sample(
    server, tmp_path, monkeypatch
):
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    server.failures["0.tar"] = 3
    made = recipe(f"http://127.0.0.1:{server.server_address[1]}/{{0,2}}.tar", tmp_path / "whole.tar")
    train_run(made, tmp_path / "run", quiet=True)
    assert waits == [1.0, 2.0, 4.0]
    assert server.asked == {"0.tar": 4, "2.tar": 1}
    assert bad_samples(tmp_path / "run") == {}


def test_a_server_that_stays_away_ends_the_start_in_one_line(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    server.failures["0.tar"] = 99
    made = recipe(f"http://127.0.0.1:{server.server_address[1]}/{{0,2}}.tar", tmp_path / "whole.tar")
    with pytest.raises(UserError, match=r"0\.tar: cannot be fetched, tried 4 times"):
        train_run(made, tmp_path / "run", quiet=True)
