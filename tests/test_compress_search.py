"""`search` and elastic training: a masked supernet computes what the sliced network does; the budget; what is drawn."""

import random

import pytest
import torch
from test_compress import compressed, pictures

from generalist.compress.lessons import of_run
from generalist.compress.methods import parsed
from generalist.compress.ways.search import at_random, cost_of, evened, parts_with_costs, worn
from generalist.compress.ways.slicing import sliced
from generalist.compress.work import Work
from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.hf.saved import read_model
from generalist.train.methods.table import build_method
from generalist.train.prepare import prepare
from tests.tiny import tiny


@torch.no_grad()
def test_the_masked_supernet_is_the_sliced_network_and_costs_are_in_proportion(small_run):
    model, processor = read_model(small_run / "model")
    work = Work(model, small_run / "model", lambda: of_run(small_run, small_run / "recipe.json", processor))
    parts, moments = parts_with_costs(work, 64)
    assert [(part.name, part.choices) for part in parts[:2]] == [
        ("encoder.layers.0.mixer", [1, 2, 3, 4]),
        ("encoder.layers.0.mlp", [32, 64, 96, 128]),
    ]
    rng, asked = random.Random(3), processor(image=pictures())
    before, candidate = model.encode(asked), at_random(parts, rng)
    with worn(parts, candidate):
        masked = model.encode(asked)
    assert torch.equal(model.encode(asked), before)
    assert float((masked - before).abs().max()) > 1e-3
    sliced(work, moments, {part.name: kept for part, kept in zip(parts, candidate, strict=True)})
    torch.testing.assert_close(work.model.encode(asked), masked, atol=1e-5, rtol=1e-4)
    # halves of everything cost half; attention's multiply-adds are tokens x (4 width^2) and its scores'
    half = evened(parts, 0.5)
    assert cost_of(parts, half) == pytest.approx(0.5 * sum(part.cost for part in parts))
    mlp = parts[1].cost / (2 * 64 * 128)  # tokens of the pass
    assert mlp == round(mlp) and parts[0].cost > mlp * 4 * 64 * 64


def test_what_is_searched_keeps_to_its_budget_and_is_no_worse_than_equal_shares(small_run, tmp_path):
    words = "search:0.5,population=6,rounds=1,parents=2,samples=64"
    found = compressed(small_run, tmp_path / "small", words)["methods"][0]
    assert found["cost"] <= 0.5 + 1e-9 and found["loss"] <= found["loss of equal shares"] and found["tried"] >= 6
    model, processor = read_model(small_run / "model")
    work = Work(model, small_run / "model", lambda: of_run(small_run, small_run / "recipe.json", processor))
    with pytest.raises(UserError, match=r"the smallest network of this model has 0\.25"):
        parsed(["search:0.2,samples=32"])[0].run(work)


def test_an_elastic_step_trains_the_first_units_of_every_part_alone():
    made = tiny(model__layers=2, model__elastic="true")
    prepared = prepare(made)
    objective = prepared.objective(made)
    elastic = build_method(made, objective).method
    batch = Steps({"wine": prepared.feeds()["wine"]}, Schedule(["wine"], [1.0], 0, False), 0)[0]
    seen = set()
    for _ in range(8):
        objective.train().zero_grad()
        objective(batch).sum().backward()
        assert elastic.kept is None  # the step is over: the next one draws
        own = []
        for units in elastic.units:
            size = units.out.in_features // units.count
            moved = units.out.weight.grad.view(len(units.out.weight), units.count, size).abs().amax((0, 2)) > 0
            kept = int(moved.sum())
            assert kept >= 1 and bool(moved[:kept].all())
            own.append(kept)
        seen.add(tuple(own))
    assert len(seen) > 2 and [units.count for units in elastic.units] == [2, 24, 2, 24]
    plain = prepared.objective(tiny(model__layers=2))
    plain.load_state_dict(objective.state_dict())
    assert torch.equal(objective.eval()(batch), plain.eval()(batch))
    with pytest.raises(UserError, match="two methods"):
        tiny(model__elastic="true", model__sparsity=0.1).check()
