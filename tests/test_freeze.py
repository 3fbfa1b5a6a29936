"""Frozen encoders: what trains is counted whole, weights come from a folder, the control is a run without them."""

import json

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.data.sources.embedded import Embedded
from generalist.hf.model import GeneralistModel
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec
from generalist.run.control import add_control, check_control
from generalist.run.results import table
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.train.freeze import trainable
from generalist.train.optimizer import parameter_groups
from generalist.train.prepare import prepare
from generalist.train.start.initial import load_initial


def recipe(**model):
    return Recipe(
        name="t",
        about="t",
        steps=2,
        modalities={"summary": Summary(), "text": Text(tokenizer="", learn=300, max_length=16), "table": Table()},
        tasks=[Classify(name="wine", source=Embedded("wine"), inputs={"table": "row"}, batch=8)],
        model=ModelSpec(width=8, layers=2, heads=2, hidden=12, **model),
    )


def built(**model):
    made = recipe(**model)
    return prepare(made).model(made)


def test_a_frozen_encoder_gets_no_gradient_and_is_not_counted_but_everything_else_is():
    model = built(freeze="encoder")
    encoder = sum(p.numel() for p in model.encoder.parameters())
    assert trainable(model) == sum(p.numel() for p in model.parameters()) - encoder
    inside = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert not inside & {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in model.tokenizers.parameters()} <= inside
    assert trainable(built()) == sum(p.numel() for p in model.parameters())


def test_the_encoder_comes_from_a_folder_and_its_control_does_not(tmp_path):
    source = built()
    with torch.no_grad():
        for p in source.encoder.parameters():
            p.add_(0.5)
    source.save_pretrained(tmp_path)
    taken = built(encoder_from=str(tmp_path), freeze="encoder")
    control = built(encoder_from=str(tmp_path), freeze="encoder", random_encoder=True)
    for (name, a), b, c in zip(
        source.encoder.state_dict().items(),
        taken.encoder.state_dict().values(),
        control.encoder.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b), name
        np.testing.assert_allclose(a - c, 0.5, atol=1e-6)  # the same draw as the source before it was moved
    assert trainable(taken) == trainable(control)


@pytest.mark.parametrize("start", ["init", "encoder_from"])
@torch.no_grad()
def test_a_run_computes_as_the_encoder_that_it_starts_from(tmp_path, start):
    rules = {"hidden_act": "quick_gelu", "branch_norm": True, "rotary": {"reference": 3}, "channel_mixers": "swiglu"}
    rules |= {"inner_norm": True, "layer_norm_eps": 1e-3, "relative": 5}
    made = recipe()
    config = prepare(made).config(made)
    for name, value in rules.items():
        setattr(config, name, value)
    source = GeneralistModel(config).eval()
    source.save_pretrained(tmp_path)
    started = recipe(**({start: str(tmp_path)} if start == "encoder_from" else {}))
    started.init = str(tmp_path) if start == "init" else ""
    started.modalities["text"].tokenizer = source.modalities["text"].tokenizer
    model = prepare(started).model(started).eval()
    if start == "init":
        load_initial(model, tmp_path)
    assert {name: getattr(model.config, name) for name in rules} == rules
    packed = pack([[Span("x", {}, 6, grid=(2, 3))], [Span("x", {}, 4)]])
    x = torch.randn(packed.tokens, 8)
    assert torch.equal(model.encoder(x, source.at(packed))[0], source.encoder(x, source.at(packed))[0])


def test_what_does_not_fit_is_named(tmp_path):
    built().save_pretrained(tmp_path)
    small = recipe(encoder_from=str(tmp_path))
    small.model.hidden = 16
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up\.weight.*model\.width"):
        prepare(small).model(small)
    with pytest.raises(UserError, match="not a model folder"):
        built(encoder_from="nowhere")
    wrong = recipe(freeze="everything")
    with pytest.raises(UserError, match=r"model\.freeze='everything'"):
        prepare(wrong)


def frozen(folder, **model):
    made = recipe(encoder_from=str(folder), freeze="encoder", **model)
    made.engine = EngineSpec(device="cpu", threads=1)
    made.checkpoint = CheckpointSpec(every=1, keep=1)
    return made


def test_a_frozen_run_trains_its_control_and_shows_it_beside_every_result(tmp_path):
    built().save_pretrained(tmp_path / "source")
    out = tmp_path / "run"
    metrics = train_run(frozen(tmp_path / "source", control=True), out, quiet=True)
    control = json.loads((out / "control" / "metrics.json").read_text())
    assert control["trainable"] == metrics["trainable"]
    assert metrics["tasks"]["wine"]["control"] == control["tasks"]["wine"]["value"]
    saved = [json.loads((f / "recipe.json").read_text())["model"] for f in (out, out / "control")]
    assert [(m["random_encoder"], m["control"]) for m in saved] == [(False, True), (True, False)]
    assert "random encoder" in table(metrics).splitlines()[0]
    page = (out / "report.html").read_text()
    assert "random encoder" in page and "without their control" not in page

    held = (out / "control" / "metrics.json").stat().st_mtime_ns
    again = train_run(frozen(tmp_path / "source", control=True), out, resume=True, quiet=True)
    assert again["tasks"]["wine"]["control"] == control["tasks"]["wine"]["value"]
    assert (out / "control" / "metrics.json").stat().st_mtime_ns == held  # a finished control is not trained again


def test_a_frozen_run_without_its_control_says_so_and_other_runs_say_nothing(tmp_path):
    built().save_pretrained(tmp_path / "source")
    metrics = train_run(frozen(tmp_path / "source"), tmp_path / "run", quiet=True)
    assert metrics["tasks"]["wine"]["control"] is None and "not run" in table(metrics)
    assert "Frozen weights without their control" in (tmp_path / "run" / "report.html").read_text()
    lines = {"wine": {}}
    for other in (recipe(), frozen(tmp_path / "source", random_encoder=True)):
        add_control(other, lines, tmp_path / "run")
    assert lines == {"wine": {}}


def test_a_control_without_frozen_weights_is_refused(tmp_path):
    for model in ({}, {"freeze": "encoder"}, {"encoder_from": "x", "freeze": "encoder", "random_encoder": True}):
        with pytest.raises(UserError, match=r"model\.control=true is for frozen weights"):
            train_run(recipe(control=True, **model), tmp_path / "run")
    with pytest.raises(UserError, match="one process"):
        check_control(recipe(control=True, freeze="encoder", encoder_from="x"), processes=2)
