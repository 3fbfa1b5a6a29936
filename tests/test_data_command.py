"""`generalist data`: shards written by command, what validate finds, what stats shows; the profile of a run's steps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from generalist.cli import main
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.places import source_at
from generalist.data.sources.shards import Shards
from generalist.data.sources.tabular import Tabular
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps, loader
from generalist.data.tools.check import check
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe
from generalist.train.engines.build import build_engine
from generalist.train.loop import train
from generalist.train.prepare import prepare
from generalist.train.profile import profiled


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path):
    lines = [f"the text of row number {i},{i % 7},{['low', 'high'][i % 2]}" for i in range(60)]
    path = tmp_path / "rows.csv"
    path.write_text("text,x,grade\n" + "\n".join(lines) + "\n")
    return path


def test_shard_writes_every_split_and_says_how_to_read_it(tmp_path, capsys):
    assert main(["data", "shard", "embedded:wine", str(tmp_path / "s"), "--per", "50", "--quiet"]) == 0
    assert "Shards(" in capsys.readouterr().out
    for split in ("train", "val", "test"):
        original, written = Embedded("wine").open(split), Shards(str(tmp_path / "s")).open(split)
        assert {r["id"]: r["row"] for r in written.rows} == {r["id"]: r["row"] for r in original.rows}
        assert written.info["classes"] == original.info["classes"]


def test_shard_goes_on_where_it_stopped_and_refuses_another_plan(table, tmp_path, capsys):
    out = tmp_path / "s"
    words = ["data", "shard", str(table), str(out), "--set", "label=grade", "--splits", "train", "--quiet"]
    assert main([*words, "--per", "9", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["train"]
    stamps = {p.name: p.stat().st_mtime_ns for p in (out / "train").glob("*.tar")}
    (out / "train/000001.tar").unlink()
    assert main([*words, "--per", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"] == first
    again = {p.name: p.stat().st_mtime_ns for p in (out / "train").glob("*.tar")}
    assert [n for n in stamps if again[n] != stamps[n]] == ["000001.tar"]
    assert main([*words, "--per", "5"]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_validate_accepts_a_sound_set_and_counts_its_classes(table, capsys):
    assert main(["data", "validate", str(table), "--set", "label=grade", "--json", "--quiet"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert sum(r["read"] for r in reports) == 60
    assert sum(r["classes"]["low"] for r in reports) == 30


def test_validate_finds_what_is_broken_blank_repeated_and_unbalanced():
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6)
    rows = [{"id": f"r{i}", "image": picture + i, "text": f"caption {i}", "label": 0} for i in range(22)]
    rows[3]["image"] = rows[1]["image"]
    rows[5]["text"] = "  "
    rows[6]["sound"] = np.array([1.0, np.nan], dtype=np.float32)
    rows[8]["label"] = 1
    report, _ = check(Records(rows, {"classes": ["a", "b", "c"]}), "train")
    found = dict(report.problems)
    assert found["repeated"] == ["r3 is r1"]
    assert found["blank text"] == ["r5: text"]
    assert found["broken"] == ["r6: 1 of 2 values are NaN or infinite"]
    assert found["unbalanced classes"] == ["b: 1 of 21, the largest has 20"]
    assert found["class without samples"] == ["c"]
    assert not report.valid


def test_the_name_of_a_files_own_class_is_no_column_that_tells_it(tmp_path):
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.fromarray(np.full((8, 8), 20 * i + 3 * len(name), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    report, _ = check(source_at(str(tmp_path)).open("train"), "train")
    assert set(report.classes) == {"dark", "light"} and not report.problems["tells the label"]


def test_validate_finds_training_samples_that_are_in_an_evaluation_set(tmp_path, capsys):
    def write(name, rows):
        path = tmp_path / name
        path.write_text("text,n\n" + "".join(f"a sentence that is long enough {i},{i}\n" for i in rows))
        return str(path)

    train, clean, same = write("train.csv", range(40)), write("clean.csv", range(50, 90)), write("same.csv", range(40))
    words = ["data", "validate", train, "--splits", "train", "--set", "val=0", "--set", "test=0", "--quiet"]
    assert main([*words, "--against", clean]) == 0
    capsys.readouterr()
    held_out = sum(len(Tabular(same).open(split)) for split in ("val", "test"))
    assert main([*words, "--against", same]) == 1
    assert 0 < held_out < 40 and f"leaked: {held_out}\n" in capsys.readouterr().out


def test_leakage_between_splits_of_one_set_is_found():
    rows = [{"id": str(i), "text": f"a sentence that is long enough {i}"} for i in range(9)]
    _, held = check(Records(rows[:3]), "test")
    report, _ = check(Records(rows[2:]), "train", {"test": held})
    assert dict(report.problems)["leaked"] == ["2 is in test"]
    short = [{"id": str(i), "text": "yes", "n": i} for i in range(4)]
    assert check(Records(short), "train")[0].valid, "short texts repeat by nature"


def test_validate_sees_bytes_that_are_not_those_of_the_index(table, tmp_path, capsys):
    out = tmp_path / "s"
    assert main(["data", "shard", str(table), str(out), "--quiet"]) == 0
    path = out / "train/000000.tar"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # in the padding at the end: every sample still reads
    path.write_bytes(raw)
    capsys.readouterr()
    assert main(["data", "validate", str(out), "--quiet"]) == 1
    assert "checksum" in capsys.readouterr().out


def test_validate_names_the_samples_of_a_cut_and_of_a_changed_shard_and_checks_the_rest(tmp_path, capsys):
    for i in range(12):
        path = tmp_path / "pictures/train/all" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    out = tmp_path / "s"
    assert main(["data", "shard", str(tmp_path / "pictures"), str(out), "--per", "4", "--quiet"]) == 0
    first, last = out / "train/000000.tar", out / "train/000002.tar"
    last.write_bytes(last.read_bytes()[:3000])
    raw = bytearray(first.read_bytes())
    at = raw.index(b"IDAT") + 40
    raw[at : at + 200] = bytes(200)
    first.write_bytes(raw)
    capsys.readouterr()
    assert main(["data", "validate", str(out), "--json", "--quiet"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["samples"], report["valid"]) == (12, False)
    broken, sums = report["problems"]["broken"], report["problems"]["checksum"]
    assert report["read"] == 12 - broken["count"]
    assert broken["count"] == 8, "nothing of a shard is used whose bytes are not those of its index"
    assert any("its checksum is not that of the index" in line for line in broken["samples"])
    assert any("3000 bytes came, the index says" in line for line in broken["samples"])
    assert ["000000.tar" in sums["samples"][0], "000002.tar" in sums["samples"][1]] == [True, True]


def test_stats_writes_numbers_and_plots(table, tmp_path, capsys):
    out = tmp_path / "stats"
    assert main(["data", "stats", str(table), "--set", "label=grade", "--out", str(out), "--quiet"]) == 0
    assert "plots" in capsys.readouterr().out
    found = json.loads((out / "stats.json").read_text())
    assert sum(s["samples"] for s in found.values()) == 60
    assert found["train"]["measures"]["text: words"]["median"] == 6
    assert set(found["train"]["classes"]) == {"low", "high"}
    assert (out / "stats.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "words, message",
    [
        (["shard", "nothing-here", "out"], "is no data"),
        (["stats", "embedded:digitz"], "did you mean 'digits'"),
        (["validate", "embedded:wine", "--splits", "trian"], "did you mean 'train'"),
        (["stats", "embedded:wine", "--set", "seed"], "not KEY=VALUE"),
        (["shard", "embedded:wine", "out", "--per", "0"], "at least 1"),
    ],
)
def test_mistakes_end_in_one_line(words, message, capsys):
    assert main(["data", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and "\n" not in told


def test_profile_writes_a_trace_and_parts_that_add_up_to_the_step(tmp_path, capsys):
    recipe = load_recipe("demo")
    recipe.tasks = [t for t in recipe.tasks if t.name == "wine"]
    for key in ("model.layers=1", "model.width=24", "model.heads=2", "model.hidden=24"):
        override(recipe, key)
    prepared = prepare(recipe)
    engine = build_engine(recipe, prepared.objective(recipe), torch.device("cpu"))
    schedule = Schedule(["wine"], [1.0])
    batches = loader(Steps(prepared.feeds(), schedule, 0), 0, 18)
    results = []
    train(*profiled(engine, batches, tmp_path, True), prepared.tasks, schedule, 0, 18, 1e-3, 2, after=results.append)
    assert len(results) == 18, "the run goes on after the profile"
    told = capsys.readouterr().err
    assert "profile: a step takes" in told and "candidates" in told
    found = json.loads((tmp_path / "profile/profile.json").read_text())
    assert sum(found["parts_ms"].values()) == pytest.approx(found["step_ms"])
    for part in ("tokenizers", "encoder, inputs", "encoder, candidates", "backward", "optimiser"):
        assert 0 < found["parts_ms"][part] < found["step_ms"]
    assert json.loads((tmp_path / "profile/trace.json").read_text())["traceEvents"]
    assert profiled(engine, batches, tmp_path, False) == (engine, batches)
