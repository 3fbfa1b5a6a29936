"""Mixers on maps and stages that merge tokens, from a recipe's keys to a trained, saved and loaded model."""

import json

import pytest
import torch
from golden import losses
from tiny import tiny

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.mixers.maps import MapMixer
from generalist.nn.mixers.table import TOKEN_MIXERS
from generalist.nn.steps.base import STAGES as STAGES_TABLE
from generalist.nn.steps.merge import Merge
from generalist.train.counted import count
from generalist.train.optimizer import parameter_groups
from generalist.train.prepare import prepare

STAGES = [
    {"mixer": "convolve"},
    {"stage": "merge", "width": 24, "heads": 4, "mixer": "attention"},
    {"mixer": "attention"},
]


def keys(**more):
    return {"model__layers": 3, "model__steps": json.dumps(STAGES)} | more


def pools(**more):
    return {"model__layers": 2, "model__mixers": '["pool", "attention"]', "model__layer_scale": 0.1} | more


@pytest.mark.parametrize("made", [pools, keys])
def test_a_recipe_of_mixers_on_maps_and_of_stages_trains(made):
    """From 2.4 to 2.0 and 1.8; guessing one of ten digits costs 2.3."""
    how = {"steps": 120, "optimizer__lr": 1e-2, "modalities__image__patch": 2, "tasks__digits__batch": 16}
    seen = [loss for task, loss in losses(tiny(**made(**how))) if task == "digits"]
    assert sum(seen[-15:]) / 15 < 2.2


PROMPTED = keys(model__prompts=2, model__separate_prompts="true", model__candidate_prompts=3)


@pytest.mark.parametrize("changed", [pools(), keys(), PROMPTED], ids=["pool", "stages", "prompts"])
def test_packed_equals_one_by_one_and_a_saved_model_is_the_same(tmp_path, changed):
    recipe = tiny(**changed, modalities__image__size=16)
    prepared = prepare(recipe)
    made = prepared.model(recipe).eval()
    image, summary = prepared.modalities["image"], prepared.modalities["summary"]
    pictures = [torch.rand(1, 4 * h, 4 * w) for h, w in ((4, 4), (3, 2), (1, 3), (2, 4))]
    row = prepared.records["wine"][0]["row"]
    given = [[summary.span(None).ask([0]), image.span(picture)] for picture in pictures]
    table = prepared.modalities["table"]
    given.append([summary.span(None).ask([0]), table.span(table.read(row))])
    with torch.no_grad():
        together = made.features(pack(given))
        for own, sequence in zip(together, given, strict=True):
            torch.testing.assert_close(own, made.features(pack([sequence]))[0], atol=1e-5, rtol=1e-4)
        made.save_pretrained(tmp_path)
        loaded = GeneralistModel.from_pretrained(tmp_path).eval()
        assert torch.equal(loaded.features(pack(given)), together)


def test_every_block_sees_its_prompts_in_its_own_width():
    """Each of a block's prompts moves what comes out, in the channels it has: 16 in front of the merge, 24 behind."""
    stack = [{"mixer": "attention"}, {"stage": "merge", "width": 24, "heads": 4}]
    recipe = tiny(**PROMPTED | {"model__layers": 2, "model__steps": json.dumps(stack)})
    prepared = prepare(recipe)
    made, image, summary = prepared.model(recipe).eval(), prepared.modalities["image"], prepared.modalities["summary"]
    packed = pack([[summary.span(None).ask([0]), image.span(torch.rand(1, 8, 8))]])
    assert made.prompts.vectors.shape == (2, 2, 24) and made.prompts.candidate_vectors.shape == (2, 3, 24)
    (made.features(packed).sum() + made.features(packed, candidate=True).square().sum()).backward()
    for vectors in (made.prompts.vectors, made.prompts.candidate_vectors):
        moved = vectors.grad.abs() > 0
        assert moved[0, :, :16].all() and not moved[0, :, 16:].any() and moved[1].all()


def test_stages_stand_where_the_steps_say_and_their_matrices_decay():
    made = GeneralistModel(
        GeneralistConfig(width=16, heads=2, hidden=24, layers=3, steps=STAGES, modalities={"image": {}})
    )
    layers = made.encoder.layers
    assert [type(layer).__name__ for layer in layers] == ["Block", "Merge", "Block", "Block"]
    assert isinstance(layers[0].mixer, MapMixer) and isinstance(layers[1], Merge)
    assert [layer.width for layer in layers] == [16, 24, 24, 24] and made.encoder.width == 24
    assert layers[2].mixer.qkv.weight.shape == (72, 24) and layers[2].mixer.heads == 4
    decayed = {id(p) for p in parameter_groups(made, 0.1)[0]["params"]}
    assert {id(layers[0].mixer.operator.depthwise.weight), id(layers[1].cells.weight)} <= decayed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (keys(model__steps='[{"width": 24}, {}, {}]'), "width 24 behind 16; give that layer a stage"),
        (keys(model__steps='[{"mixer": {"kind": "pool", "sise": 3}}, {}, {}]'), "pool has no setting 'sise'.*size"),
        (keys(model__steps='[{}, {"stage": "merg"}, {}]'), "steps: stage 'merg'.*merge"),
        (
            keys(model__steps='[{}, {"stage": {"kind": "merge", "factr": 4}}, {}]'),
            "merge has no setting 'factr'.*factor",
        ),
        ({"model__mixers": "pool"}, "no mixer lets tokens see beyond their own grid"),
    ],
)
def test_stages_that_cannot_work_are_refused_when_read(changed, said):
    with pytest.raises(UserError, match=said):
        prepare(tiny(**changed))


def test_a_plan_counts_stages_as_they_run():
    recipe = tiny(**keys())
    number, largest, counted = count(recipe, 1)
    prepared = prepare(recipe)
    objective = prepared.objective(recipe)
    assert number == sum(p.numel() for p in objective.parameters())
    assert largest == max(sum(p.numel() for p in layer.parameters()) for layer in objective.model.encoder.layers)
    assert all(one.flops > 0 and one.activations > 0 for one in counted.values())
    with pytest.raises(UserError, match="layers that merge tokens"):
        count(tiny(**keys(engine__activation_checkpointing="true")), 1)


MINE = """
import torch
from torch import nn
from generalist.nn.mixers.base import Mixer
from generalist.nn.steps.base import Step

class Scale(Mixer):
    def __init__(self, width, heads, start=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,), float(start)))

    def forward(self, x, at):
        return x * self.gain

class Halves(Step):
    '''Of every picture every second token stays.'''
    def __init__(self, width, out):
        super().__init__()
        self.width, self.map = out, nn.Linear(width, out)

    def forward(self, x, at):
        changed = []
        for piece in at.pieces.placed():
            own = torch.arange(piece.start, piece.start + piece.length)
            if piece.shape is not None and len(piece.shape) > 1 and not piece.asked:
                own = own[::2]
                piece = piece._replace(length=len(own), shape=None, cells=None)
            changed.append((piece, own))
        at_, order = at.rebuilt(changed)
        return self.map(x[torch.cat([own for _, own in changed])])[order], at_
"""


def test_a_mixer_and_a_stage_of_ones_own_are_one_file_and_a_line_in_a_table(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TOKEN_MIXERS, "scale", "mine:Scale")
    monkeypatch.setitem(STAGES_TABLE, "halves", "mine:Halves")
    steps = [{"mixer": {"kind": "scale", "start": 0.5}}, {"stage": "halves", "width": 24, "heads": 4}]
    recipe = tiny(model__layers=2, model__steps=json.dumps(steps), steps=4)
    assert all(torch.tensor([loss for _, loss in losses(recipe)]).isfinite())
    prepared = prepare(recipe)
    made, image, summary = prepared.model(recipe).eval(), prepared.modalities["image"], prepared.modalities["summary"]
    assert (made.encoder.layers[0].mixer.gain == 0.5).all()
    packed = pack([[summary.span(None).ask([0]), image.span(torch.rand(1, 8, 8))] for _ in range(3)])
    hidden, at = made.encoded(packed)
    assert hidden.shape == (3 * 3, 24) and sorted(p.length for p in at.pieces) == [1, 1, 1, 2, 2, 2]
