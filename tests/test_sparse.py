"""The term that makes attention sparse: its value and gradient by hand, what a step adds, what is refused."""

import math
from types import SimpleNamespace

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.nn.taps import Kept
from generalist.train.methods.sparse import Sparse
from generalist.train.methods.table import build_method
from generalist.train.prepare import prepare
from tests.tiny import tiny


def test_the_term_of_a_hand_made_attention_and_its_gradient():
    sparse = Sparse()
    sparse.weight, sparse.layers, sparse.seen = 0.01, {"layers.0.mixer.weights"}, []
    sparse.model = SimpleNamespace(training=True)
    a = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]], requires_grad=True)
    assert sparse("layers.0.mixer.weights", a, None) is a and sparse("layers.1.mixer.weights", a, None) is a
    loss = sparse.loss(SimpleNamespace(real=torch.ones(3)))
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.01 * 3 * (math.log(2) + 2 * math.log(1.25)) / 4)
    # d ln(1 + a^2) / da = 2 a / (1 + a^2)
    torch.testing.assert_close(a.grad, 0.01 * 3 / 4 * torch.tensor([[[[1.0, 0.0], [0.8, 0.8]]]]))
    assert sparse.loss(SimpleNamespace(real=torch.ones(3))) is None


@pytest.mark.parametrize("layers", ["last", "all"])
def test_a_step_adds_the_mean_over_its_layers_for_every_answer(layers):
    made = tiny(model__layers=2, model__sparsity=0.5, model__sparsity_layers=layers)
    prepared = prepare(made)
    objective, plain = prepared.objective(made), prepared.objective(made)
    added = build_method(made, objective)
    batch = Steps({"wine": prepared.feeds()["wine"]}, Schedule(["wine"], [1.0], 0, False), 0)[0]
    names = [f"layers.{i}.mixer.weights" for i in ((0, 1) if layers == "all" else (1,))]
    seen = Kept(*names)
    with objective.model.tapped(seen):
        total = objective.train()(batch)
    weights = torch.cat([w.flatten() for own in seen.values() for w in own])
    mean = weights.square().log1p().mean()
    law = plain.train()(batch)
    assert float((total - law).detach()) == pytest.approx(float(0.5 * batch.count * mean), rel=1e-4)
    assert float(added.take()) == pytest.approx(float((total - law).detach()), rel=1e-4)
    total.sum().backward()
    assert float(objective.eval()(batch).detach()) == pytest.approx(float(plain.eval()(batch).detach()), rel=1e-6)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model__sparsity": -1}, "0 <= sparsity"),
        ({"model__sparsity": 0.1, "model__sparsity_layers": "some"}, "sparsity_layers='some'"),
        ({"model__sparsity": 0.1, "model__mixers": "identity", "model__readout": "mean"}, "no layer has any"),
        ({"model__sparsity": 0.1, "engine__activation_checkpointing": "true"}, "activation_checkpointing=false"),
        ({"method__kind": "sparse"}, "needs model.sparsity"),
        ({"model__sparsity": 0.1, "distill__teacher": "somewhere"}, "two methods"),
    ],
)
def test_what_cannot_be_is_one_line(keys, said):
    with pytest.raises(UserError, match=said) as told:
        made = tiny(**keys)
        build_method(made, prepare(made).objective(made))
    assert "\n" not in str(told.value)
