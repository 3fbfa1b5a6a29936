"""Two towers as the start of a run: layers that begin as the identity, a new modality beside frozen towers."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from generalist.convert import hf
from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.hf.saved import read_model
from generalist.recipe.keys import override
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.numbers.series import Series
from generalist.train.plan import plan
from generalist.train.prepare import prepare
from generalist.train.start.initial import load_initial
from tests import pair_folders
from tests.tiny import tiny

KINDS = ["rising", "falling", "a wave", "still"]


@dataclass
class Waves:
    """Series of 64 steps of four kinds, in noise."""

    def open(self, split):
        rng = np.random.default_rng(["train", "val", "test"].index(split))
        steps, rows = np.linspace(-1, 1, 64), []
        for i in range({"train": 400}.get(split, 80)):
            shape = (steps, -steps, np.sin(9 * steps + 6 * rng.random()), 0 * steps)[i % 4]
            rows.append({"series": shape + 0.2 * rng.normal(size=64), "label": i % 4})
        return Records(rows, {"classes": KINDS})


NAMES = ["a cat", "two dogs", "a photo of this"]
PICTURES = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)) for i in range(3)]


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    source, out = (tmp_path_factory.mktemp(name) for name in ("library", "towers"))
    pair_folders.build("siglip", source)
    hf.convert(source, out)
    return out


def recipe(towers, **keys):
    made = Recipe(
        name="bound",
        about="series beside two towers",
        steps=1,
        modalities={"series": Series(patch=16, normalise=False)},
        tasks=[Classify(name="waves", source=Waves(), inputs={"series": "series"}, batch=8)],
        model=ModelSpec(layers=2, hidden=32),
        optimizer=OptimizerSpec(lr=0.0, warmup=2),
        engine=EngineSpec(device="cpu", threads=1),
        checkpoint=CheckpointSpec(every=0),
        init=str(towers),
        baseline=False,
    )
    override(made, *(f"{key.replace('__', '.')}={value}" for key, value in keys.items()))
    return made


def answers(model, processor):
    tensors = processor(image=PICTURES, text=NAMES, return_tensors="pt")
    with torch.no_grad():
        return model(**tensors).logits, model.log_likelihood(processor(image=PICTURES), processor.candidates(NAMES))


@pytest.mark.parametrize("layers", [0, 2])
def test_layers_that_are_added_change_no_answer_before_the_first_step(layers, towers):
    logits, log_p = answers(*read_model(towers))
    asked = recipe(towers, model__layers=layers)
    prepared = prepare(asked)
    model = prepared.model(asked).eval()
    report = load_initial(model, towers)
    assert model.config.layers == layers and len(model.encoder.layers) == layers
    grown, grown_p = answers(model, prepared.processor())
    torch.testing.assert_close(grown, logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(grown_p, log_p, atol=1e-6, rtol=0)
    assert f"new layers that begin as the identity: {2 * layers} gains of residual branches at zero" in report.notes
    assert report.missing == report.unexpected == []


def test_what_cannot_begin_as_the_identity_or_without_layers_is_refused(towers):
    for keys, words in (
        ({"model__norm": "post"}, "norm=post: such layers cannot begin as the identity"),
        ({"model__steps": '[{"stage": "merge"}, {}]'}, "layers that merge tokens cannot begin"),
        ({"model__layers": 0, "model__prompts": 2}, "layers=0 has no layer that deep prompts could go into"),
        ({"model__layers": 0, "model__moe__placement": "all"}, "layers=0 has no layer that experts"),
    ):
        with pytest.raises(UserError, match=words):
            prepare(recipe(towers, **keys))
    with pytest.raises(UserError, match=r"layers=0 with model\.readout=asked"):
        prepare(tiny(model__layers=0))
    with pytest.raises(UserError, match="no modality of this model has a pretrained network"):
        asked = tiny(model__freeze="towers")
        prepare(asked).model(asked)


def test_a_plan_counts_a_model_without_layers(towers):
    bare, grown = (plan(recipe(towers, model__layers=layers), 1, "a100") for layers in (0, 2))
    own = prepare(recipe(towers, model__layers=0))
    assert bare["parameters"] == sum(p.numel() for p in own.model(recipe(towers, model__layers=0)).parameters())
    assert grown["parameters"] > bare["parameters"]


def test_a_new_modality_learns_beside_towers_that_stay_as_they_are(towers, tmp_path):
    out = tmp_path / "run"
    metrics = train_run(
        recipe(towers, steps=120, optimizer__lr=1e-2, model__layers=1, model__freeze="towers"), out, quiet=True
    )
    before, _ = read_model(towers)
    after, _ = read_model(out / "model")
    for name in ("image", "text"):
        old, new = (m.tokenizers[name].state_dict() for m in (before, after))
        assert [key for key in old if not torch.equal(old[key], new[key])] == []
    assert any(bool(block.gamma1.any()) for block in after.encoder.layers)
    assert metrics["tasks"]["waves"]["value"] > 0.6, metrics["tasks"]["waves"]
    assert metrics["start"]["tasks"] == {} and metrics["start"]["notes"] == []  # the towers know no series
    second = train_run(recipe(out), tmp_path / "second", quiet=True)  # a step that changes nothing, after that
    assert second["start"]["tasks"]["waves"] == {
        "metric": "accuracy",
        "higher_is_better": True,
        "before": metrics["tasks"]["waves"]["value"],
        "after": metrics["tasks"]["waves"]["value"],
    }
    assert "What the start knew" in (tmp_path / "second" / "report.html").read_text()
