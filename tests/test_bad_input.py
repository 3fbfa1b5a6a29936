"""What no tokenizer can read ends in one line that names task, sample and field; what is small but whole is read."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from small import Listed

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Feed, Steps
from generalist.evaluate.answer import batches
from generalist.tasks.classify import Classify
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.text.bpe import train_bpe

NAN, INF = float("nan"), float("inf")
SETTINGS = {
    "summary": {},
    "text": {"max_length": 12, "positions": 12, "tokenizer": train_bpe(["no", "yes", "a text"], 270).to_str()},
    **{name: {"size": 16, "patch": 8} for name in ("image", "xray", "thermal", "depth")},
    "spectral": {"bands": 5, "patch": 3},
    "video": {"size": 16, "patch": 8, "frames": 5},
    "region": {"height": 32, "width": 32, "mode": "global"},
    "audio": {"rate": 8000, "mels": 20, "patch": [20, 4], "stride": [20, 4]},
    "imu": {"channels": 3, "patch": 4, "rate": 50.0},
    "graph": {"node_columns": [3], "identifiers": 2},
    "points": {"groups": 5, "size": 3, "hidden": 4},
    "series": {"patch": 4},
    "slot": {"patch": 3},
    "table": {"schemas": {"t": Schema.learn([{"age": 3, "city": "x"}, {"age": 5.5, "city": "y"}]).to_json()}},
    "number": {},
}


def png(width: int, height: int) -> bytes:
    """A picture file that says it has this size, and holds one row of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def truncated(tmp_path, suffix: str):
    """A real file of this kind, cut in the middle."""
    path = tmp_path / f"cut{suffix}"
    whole = io.BytesIO()
    draw = np.random.default_rng(0)
    if suffix == ".wav":
        import soundfile

        soundfile.write(whole, draw.normal(size=4000), 8000, format="WAV")
        path.write_bytes(whole.getvalue()[:20])
        return path
    if suffix == ".npy":
        np.save(whole, draw.normal(size=(40, 3)))
    else:
        Image.fromarray(draw.integers(0, 255, (40, 40), dtype=np.uint8)).save(whole, suffix[1:].upper())
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    return path


def bomb(tmp_path, width: int, height: int):
    path = tmp_path / f"bomb{width}.png"
    path.write_bytes(png(width, height))
    return path


PICTURES = ("image", "xray", "thermal", "depth", "region", "video")
# modality, what is wrong (a value, or a function of a folder), what the line says
BAD = [
    *((name, np.zeros((0, 5)), r"at least one pixel|expected depths|no frame") for name in PICTURES if name != "video"),
    *((name, np.full((4, 4), NAN), r"NaN|missing") for name in PICTURES),
    *((name, np.full((4, 4), INF), r"infinite|missing") for name in ("image", "thermal", "region")),
    *((name, "no such file.png", r"cannot be read|no such file") for name in PICTURES),
    *((name, lambda folder: truncated(folder, ".png"), r"cut\.png.*complete") for name in PICTURES),
    *((name, lambda folder: bomb(folder, 11000, 11000), r"11000 x 11000.*over") for name in PICTURES),
    *((name, lambda folder: bomb(folder, 60000, 60000), r"bomb60000.*(over|exceeds)") for name in PICTURES),
    ("image", np.zeros((2, 5, 6)), r"2 channels given"),
    ("image", object(), r"image"),
    ("region", np.zeros((5, 6, 7)), r"5 channels given"),
    ("thermal", np.zeros((4, 4, 3)), r"one channel"),
    ("depth", np.zeros((4, 4)), r"every depth is missing"),
    ("depth", np.ones((4, 4, 3)), r"expected depths"),
    ("spectral", np.zeros((0, 4, 5)), r"expected \[H, W, 5\]"),
    ("spectral", np.zeros((4, 4, 3)), r"expected \[H, W, 5\]"),
    ("spectral", np.full((4, 4, 5), NAN), r"every value is missing"),
    ("spectral", np.full((4, 4, 5), INF), r"infinite"),
    ("spectral", (np.zeros((4, 4, 5)), 9, 0), r"outside the cube"),
    ("spectral", lambda folder: truncated(folder, ".npy"), r"cut\.npy.*not readable"),
    ("video", np.zeros((0, 5, 5, 3)), r"no frame"),
    ("video", [np.zeros((4, 4)), np.zeros((4, 5))], r"differ in size"),
    ("audio", (np.zeros(0), 8000), r"no samples"),
    ("audio", (np.zeros(1), 8000), r"less than one frame"),
    ("audio", (np.zeros(900), 0), r"sampling rate"),
    ("audio", (np.zeros(900), -8000), r"sampling rate"),
    ("audio", (np.zeros(900), 8000.5), r"sampling rate"),
    ("audio", (np.full(900, NAN), 8000), r"NaN"),
    ("audio", (np.zeros((2, 9, 9)), 8000), r"expected numbers"),
    ("audio", np.zeros(900), r"give a path"),
    ("audio", lambda folder: truncated(folder, ".wav"), r"cut\.wav.*(readable|samples|frame)"),
    ("imu", np.zeros((0, 3)), r"at least one sample"),
    ("imu", np.zeros((9, 2)), r"expected \[t, 3\]"),
    ("imu", np.full((9, 3), NAN), r"every value is missing"),
    ("imu", np.full((9, 3), INF), r"infinite"),
    ("imu", (np.zeros((9, 3)), -1.0), r"rate -1"),
    ("imu", (np.zeros((9, 3)), NAN), r"rate nan"),
    ("imu", lambda folder: truncated(folder, ".npy"), r"cut\.npy.*not readable"),
    ("graph", {"nodes": [], "edges": []}, r"no node"),
    ("graph", {"nodes": [0], "edges": [[0, 1]]}, r"names node 1"),
    ("graph", {"nodes": [0, 1], "edges": [[0.5, 1.0]]}, r"expected integers"),
    ("graph", {"nodes": [[0, 1]], "edges": []}, r"2 columns"),
    ("graph", {"nodes": [-1], "edges": []}, r"category -1"),
    ("graph", {"node_values": [[NAN]], "edges": []}, r"NaN"),
    ("graph", 7, r"cannot read int"),
    ("points", np.zeros((0, 3)), r"no points"),
    ("points", np.zeros((5, 2)), r"expected \(n, 3\)"),
    ("points", np.full((5, 3), NAN), r"NaN"),
    ("points", lambda folder: truncated(folder, ".npy"), r"cut\.npy.*not readable"),
    ("series", np.zeros(0), r"at least one step"),
    ("series", np.full(9, NAN), r"missing"),
    ("series", np.full(9, INF), r"infinite"),
    ("series", ["a", "b"], r"not an array of numbers"),
    ("series", lambda folder: truncated(folder, ".npy"), r"cut\.npy.*not readable"),
    ("slot", 0, r"at least 1"),
    ("slot", [], r"expected \[horizon\]"),
    ("slot", [1.0, INF], r"infinite"),
    ("table", {"age": 3}, r"lacks \['city'\]"),
    ("table", {"age": 3, "city": "x", "salary": 1}, r"no column 'salary'"),
    ("table", {"age": "old", "city": "x"}, r"'age' holds 'old'"),
    ("table", {"age": INF, "city": "x"}, r"finite"),
    ("table", {"age": [3], "city": "x"}, r"one value"),
    ("number", [], r"no values"),
    ("number", [NAN], r"NaN"),
    ("number", "many", r"not a list of numbers"),
    ("text", "", r"empty"),
    ("text", " \n\t ", r"empty"),
    ("text", 5, r"expected a str"),
]


def task_of(modality):
    task = Classify(name="judge", source=None, inputs={modality: "payload"}, classes=["no", "yes"], batch=1)
    found = build_modalities({name: SETTINGS[name] for name in ("summary", "text", modality)})
    task.bind(found, None, {})
    task.adopt(task.candidate_set(Listed({"train": []}).open("train")))
    return task


@pytest.mark.parametrize(("modality", "raw", "says"), BAD)
def test_a_bad_input_ends_in_one_line_with_task_sample_and_field(modality, raw, says, tmp_path):
    task = task_of(modality)
    value = raw(tmp_path) if callable(raw) else raw
    record = {"id": "sample-7", "payload": str(value) if hasattr(value, "parent") else value, "label": 1}
    records = Listed({"train": [record]}).open("train")
    steps = Steps({"judge": Feed(records, task.example, task.collate, 1)}, Schedule(["judge"], [1.0]), 0)
    for run in (lambda: steps[0], lambda: list(batches(task, records))):
        with pytest.raises(UserError, match=says) as caught:
            run()
        line = str(caught.value)
        assert "task judge, record sample-7: field 'payload': " in line and "\n" not in line


def test_every_modality_is_tried_with_bad_input():
    assert {modality for modality, *_ in BAD} == set(MODALITIES) - {"summary"}


# as little as there can be: modality, value, number of real tokens
LEAST = [
    *((name, np.full((1, 1), 0.5), 4) for name in ("image", "xray", "thermal", "depth")),  # stretched to 16 x 16
    ("region", np.full((1, 1), 0.5), 2),
    ("spectral", np.ones((1, 1, 5)), 5),
    ("spectral", np.where(np.arange(5) == 2, 1.0, NAN), 1),  # four bands missing
    ("video", np.zeros((1, 1, 1, 3)), 4),
    ("audio", (np.zeros(200), 8000), 1),  # one frame, silence
    ("imu", np.ones((1, 3)), 1),
    ("imu", np.where(np.arange(27).reshape(9, 3) == 4, 1.0, NAN), 1),  # one value
    ("graph", {"nodes": [1], "edges": []}, 1),
    ("graph", {"nodes": [1], "edges": [[0, 0]]}, 2),
    ("points", np.zeros((1, 3)), 1),
    ("points", np.ones((40, 3)), 1),  # all in one place
    ("series", np.zeros(1), 1),
    ("series", np.where(np.arange(9) == 8, 5.0, NAN), 1),
    ("slot", 1, 1),
    ("table", {"age": None, "city": None}, 2),  # all missing: a missing token a column
    ("table", {"age": NAN, "city": "never seen"}, 2),
    ("number", 0.0, 1),
    ("text", "no", 2),
]


@pytest.mark.parametrize(("modality", "raw", "tokens"), LEAST)
def test_the_least_input_that_is_whole_has_its_tokens_and_they_are_finite(modality, raw, tokens):
    found = build_modalities({modality: SETTINGS[modality]})[modality]
    span = found.span(found.read(raw))
    real = torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask
    assert int(real.sum()) == tokens
    if modality != "region":  # a proposer is a network of its own and has tests of its own
        assert found.build(8)(span.data)[real].isfinite().all()


def test_a_row_of_missing_values_is_the_missing_token_of_every_column():
    table = build_modalities({"table": SETTINGS["table"]})["table"]
    spans = [table.span(table.read({"age": age, "city": city})) for age, city in ((None, NAN), ("", "?"))]
    assert torch.equal(spans[0].data["category"], torch.ones(2, dtype=torch.long))
    assert torch.equal(spans[1].data["category"], spans[0].data["category"]) and not spans[1].data["value"].any()
