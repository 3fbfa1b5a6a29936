"""Every modality of the table: its example runs, batches equal single samples, masked tokens change nothing, fusion."""

import numpy as np
import pytest
import torch

from generalist.data.batch.pack import pack
from generalist.data.stream.source import Records
from generalist.hf.model import GeneralistModel
from generalist.model.config import GeneralistConfig
from generalist.tasks.classify import Classify
from generalist.tasks.restore import Restore
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities, modality_class
from generalist.tokenizers_mod.tables.schema import Schema

rng = np.random.default_rng(0)
ROWS = [{"age": 3, "city": "x"}, {"age": 5.5, "city": "y"}, {"age": None, "city": "z"}]
RING = {"nodes": [0, 1, 2], "edges": [[0, 1], [1, 2]]}

# modality -> (settings, raw inputs of different sizes). Regions need a proposer and have tests of their own.
EXAMPLES = {
    "summary": ({}, [None, None]),
    "text": ({"max_length": 12, "positions": 12}, ["a cat", "two dogs on a mat", "x"]),
    "image": ({"size": 16, "patch": 8}, [rng.random((20, 33)), rng.random((7, 5)), rng.random((1, 1))]),
    "xray": ({"size": 16, "patch": 8}, [rng.integers(0, 4096, (30, 20)), rng.random((5, 5))]),
    "thermal": ({"size": 16, "patch": 8}, [rng.normal(20, 5, (12, 16)), rng.normal(90, 5, (3, 2))]),
    "depth": ({"size": 16, "patch": 8}, [rng.uniform(0.5, 5, (12, 16)), np.pad(rng.random((6, 6)), ((0, 0), (6, 0)))]),
    "spectral": ({"bands": 5, "patch": 2, "group": 2}, [rng.normal(size=(3, 5, 5)), rng.normal(size=(1, 1, 5))]),
    "video": ({"size": 16, "patch": 8, "frames": 5}, [rng.random((5, 16, 20, 3)), rng.random((2, 30, 30, 3))]),
    "audio": (
        {"mels": 20, "patch": [20, 4], "stride": [20, 4], "rate": 8000},
        [(rng.normal(size=3000), 8000), (rng.normal(size=900), 16000)],
    ),
    "imu": ({"channels": 3, "patch": 4}, [rng.normal(size=(17, 3)), rng.normal(size=(2, 3))]),
    "graph": ({"node_columns": [3], "identifiers": 2}, [RING, {"nodes": [2], "edges": []}]),
    "points": ({"groups": 5, "size": 3, "hidden": 4}, [rng.normal(size=(40, 3)), rng.normal(size=(2, 3))]),
    "series": ({"patch": 4}, [rng.normal(size=19), np.array([1.0, np.nan, 3.0])]),
    "slot": ({"patch": 3}, [7, 2]),
    "table": ({"schemas": {"t": Schema.learn(ROWS).to_json()}}, ROWS),
    "number": ({}, [[0.5], [-1.0, 2.0]]),
}
ELSEWHERE = {"region"}  # needs a proposer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    settings = {name: dict(values) for name, (values, _) in EXAMPLES.items()}
    config = GeneralistConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, modalities=settings
    )
    return GeneralistModel(config).eval()


@pytest.fixture(scope="module")
def modalities():
    return build_modalities({name: dict(values) for name, (values, _) in EXAMPLES.items()})


def sequence(modalities, *parts):
    """[summary asked, spans...] of (modality, raw) pairs."""
    spans = [modalities[name].span(modalities[name].read(raw)) for name, raw in parts]
    # questions of future slots are asked elsewhere
    spans = [s if s.asked is None else type(s)(s.modality, s.data, s.length, s.mask) for s in spans]
    return [modalities["summary"].span(None).ask([0]), *spans]


def test_every_modality_of_the_table_has_an_example_here_and_says_what_it_takes():
    assert set(EXAMPLES) | ELSEWHERE == set(MODALITIES)
    for name in MODALITIES:
        kind = modality_class(name)
        assert kind.raw and kind.count, name


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "summary"])
def test_a_ragged_batch_equals_its_samples_one_by_one(model, modalities, name):
    sequences = [sequence(modalities, (name, raw)) for raw in EXAMPLES[name][1]]
    assert len({sum(s.length for s in seq) for seq in sequences}) > 1 or name in ("table", "xray", "thermal")
    with torch.no_grad():
        batch = model.features(pack(sequences))
        single = torch.cat([model.features(pack([seq])) for seq in sequences])
    assert batch.isfinite().all()
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "summary"])
def test_values_of_masked_tokens_never_change_the_result(model, modalities, name):
    head, span = sequence(modalities, (name, EXAMPLES[name][1][0]))
    if span.length < 2 or any(len(v) != span.length for v in span.data.values()):
        return
    mask = torch.ones(span.length, dtype=torch.bool)
    mask[0] = False
    spoiled = {k: v.clone() for k, v in span.data.items()}
    for value in spoiled.values():
        if value.is_floating_point():
            value[0] = value[0] * -3 + 7
    kind = type(span)
    with torch.no_grad():
        a = model.features(pack([[head, kind(name, span.data, span.length, mask)]]))
        b = model.features(pack([[head, kind(name, spoiled, span.length, mask)]]))
    assert torch.equal(a, b)


FUSED = [("audio", "image"), ("table", "text"), ("image", "table"), ("graph", "series"), ("imu", "video", "text")]


@pytest.mark.parametrize("names", FUSED)
def test_several_modalities_in_one_sequence_with_any_of_them_missing(model, modalities, names):
    whole = sequence(modalities, *((n, EXAMPLES[n][1][0]) for n in names))
    without = [sequence(modalities, *((n, EXAMPLES[n][1][1]) for n in names if n != left)) for left in names]
    with torch.no_grad():
        batch = model.features(pack([whole, *without]))
        single = torch.cat([model.features(pack([seq])) for seq in [whole, *without]])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(batch[0], batch[1], atol=1e-4)  # what is missing was seen before


def fused_task(modalities, **inputs):
    task = Classify(name="fused", source=None, inputs=inputs, classes=["no", "yes"])
    records = Records([], {})
    task.bind(modalities, None, {})
    task.bind(modalities, task.candidate_set(records), {})
    return task


def test_a_task_reads_two_fields_and_a_field_that_is_none_is_a_missing_modality(modalities):
    task = fused_task(modalities, audio="sound", image="picture")
    record = {"id": "a", "sound": EXAMPLES["audio"][1][0], "picture": EXAMPLES["image"][1][0], "label": 1}
    assert [s.modality for s in task.example(record).inputs] == ["summary", "audio", "image"]
    assert [s.modality for s in task.example(record | {"sound": None}).inputs] == ["summary", "image"]
    batch = task.collate([task.example(record), task.example(record | {"picture": None})])
    assert batch.inputs.labels.tolist() == [1, 1] and batch.inputs.sequences == 2


class Few:
    """A source of a few sine recordings; one in three has a gap."""

    def open(self, split):
        rows = []
        for i in range(24):
            wave = np.sin(np.arange(32)[:, None] / (2 + i % 5) + np.arange(3))
            if i % 3 == 0:
                wave[8:16] = np.nan
            rows.append({"id": f"{split}{i}", "signal": wave})
        return Records(rows, {})


def restore(modalities, **settings):
    task = Restore(name="r", source=Few(), inputs={"imu": "signal"}, bins=8, **settings)
    task.bind(modalities, None, {})
    task.bind(modalities, task.candidate_set(task.source.open("train")), {})
    return task


def test_restore_hides_real_tokens_only_and_asks_for_what_they_held(modalities):
    task = restore(modalities, rate=0.5)
    record = task.source.open("test")[0]
    span = modalities["imu"].span(modalities["imu"].read(record["signal"]))
    shown = task.example(record).inputs[1]
    assert span.mask.sum() == 6 and len(shown.asked) == 3 and span.mask[shown.asked].all()
    assert not shown.data["patch"][shown.asked].any()
    rest = torch.ones(span.length, dtype=torch.bool)
    rest[shown.asked] = False
    assert torch.equal(shown.data["patch"][rest], span.data["patch"][rest])
    values, measured = span.data["patch"][shown.asked].chunk(2, dim=1)
    assert measured.all()
    values = values.mean(1)
    numbers = task.candidates
    torch.testing.assert_close(shown.labels * numbers.std + numbers.mean, values, atol=1e-5, rtol=1e-5)
    assert torch.equal(task.example(record).inputs[1].asked, shown.asked)
    drawn = [task.example(record, torch.Generator().manual_seed(s)).inputs[1].asked.tolist() for s in range(6)]
    assert len({tuple(asked) for asked in drawn}) > 2


def test_restore_is_scored_by_the_likelihood_over_number_tokens(modalities):
    task = restore(modalities)
    numbers = task.candidates
    labels = torch.tensor([-0.5, 0.25, 1.0])
    sure = numbers.target(labels).log()
    assert task.score(sure, labels)["mse"].value < 0.5 < task.score(sure.flip(0), labels)["mse"].value
    found = task.baseline(None, None, task.source.open("test"))
    assert found["value"] > 0 and found["chance"] == pytest.approx(1, abs=0.5)
