"""Concepts: the autoencoder's formulas, sae-lens's names, more active the stranger the input, steering by hand."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file
from small import modalities
from test_inspect_explain import ROWS, WORDS, bound, model_of

from generalist.data.base.errors import UserError
from generalist.inspect.asking.look import looks
from generalist.inspect.base import save
from generalist.inspect.concepts import sae as module
from generalist.inspect.concepts.concepts import KINDS, Concepts
from generalist.inspect.concepts.sae import SparseAutoencoder, geometric_median, normalised, train
from generalist.inspect.concepts.uses import Steer, goodness, predicted, steered
from generalist.report.sections.concepts import concepts_section
from generalist.run.results import load_run
from generalist.run.train import train_run
from tests.tiny import tiny


def test_the_loss_is_the_formula_and_its_gradient_that_of_finite_differences():
    torch.manual_seed(0)
    sae = SparseAutoencoder(3, 5).double()
    with torch.no_grad():
        sae.b_enc.normal_(), sae.b_dec.normal_()
    x = torch.randn(4, 3, dtype=torch.double)
    f = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).clamp(min=0)
    by_hand = ((x - f @ sae.W_dec - sae.b_dec) ** 2).sum() / 4 + 0.7 * f.sum() / 4
    assert torch.allclose(sae.loss(x, 0.7), by_hand)
    weights = [p.detach().clone().requires_grad_() for p in sae.parameters()]
    names = [name for name, _ in sae.named_parameters()]

    def loss(*values):
        held = dict(zip(names, values, strict=True))
        return torch.func.functional_call(_Loss(sae), {f"sae.{k}": v for k, v in held.items()}, (x,))

    assert torch.autograd.gradcheck(loss, weights)


class _Loss(torch.nn.Module):
    def __init__(self, sae):
        super().__init__()
        self.sae = sae

    def forward(self, x):
        return self.sae.loss(x, 0.7)


def test_an_orthonormal_dictionary_without_sparsity_gives_back_what_it_is_given():
    sae = SparseAutoencoder(4, 8)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([basis, -basis]))
        sae.W_enc.copy_(sae.W_dec.T)
    x = torch.randn(6, 4)
    assert torch.allclose(sae.decode(sae.encode(x)), x, atol=1e-6)
    assert sae.encode(x).gt(0).sum(1).tolist() == [4] * 6  # one of each axis' two
    assert sae.loss(x, 0.0).item() == pytest.approx(0, abs=1e-9)
    code = torch.tensor([[0.0, 2, 0, 0, 3, 0, 0, 0]])  # by hand: two active
    assert sae.encode(sae.decode(code)).gt(1e-5).sum() == 2


def test_training_keeps_rows_of_length_one_and_finds_planted_directions(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    planted = torch.nn.functional.normalize(torch.randn(6, 8, generator=rng), dim=1)
    which = torch.randint(6, (2000,), generator=rng)
    x = 3 * planted[which] + 0.02 * torch.randn(2000, 8, generator=rng)
    sae = train(x, steps=400)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(32), atol=1e-5)
    first, last = (one.loss(x).item() for one in (train(x, steps=0), sae))
    assert last < 0.5 * first  # measured .2
    active = {way: train(x, steps=400, settled=way).encode(x).gt(0).sum(1).double().mean() for way in (False, True)}
    assert active[True] < 3 < active[False], active  # one direction each; measured 2.2 and 5.8
    assert torch.allclose(geometric_median(torch.tensor([[0.0], [0.0], [9.0]])), torch.zeros(1), atol=1e-2)


def test_the_files_are_those_of_sae_lens():
    sae = SparseAutoencoder(4, 16)
    files = sae.files("layers.1")
    weights, about = load(files["sae_weights.safetensors"]), json.loads(files["cfg.json"])
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "W_enc": (4, 16), "b_enc": (16,), "W_dec": (16, 4), "b_dec": (4,)}  # fmt: skip
    assert about["d_in"] == 4 and about["d_sae"] == 16 and about["normalize_activations"] == "layer_norm"
    again = SparseAutoencoder(4, 16)
    again.load_state_dict(weights)
    x = torch.randn(3, 4)
    assert torch.equal(again.encode(x), sae.encode(x))


def test_steering_adds_the_concept_and_taking_all_away_leaves_the_rest():
    kinds = modalities()
    task, records, objective = bound(ROWS[:4], WORDS, kinds, model_of(kinds), {"text": "text"})
    look = next(looks(task, records, objective))
    sae, kept = SparseAutoencoder(16, 64), {}

    def keep(name, x, at):
        kept.setdefault(name, x.detach())
        return x

    steer = Steer("layers.0", sae, {3: 2.0})
    with torch.no_grad(), objective.model.tapped(keep, steer):
        before = look.log_p()
        raw = kept["layers.0"]
        moved = steer("layers.0", raw, None)
    own = raw.std(-1, correction=0, keepdim=True)
    assert torch.allclose(moved - raw, 2.0 * sae.W_dec[3] * own, atol=1e-5)
    assert steer("layers.1", raw, None) is raw
    out = Steer("layers.0", sae, {}, list(range(64)))
    want = raw - (sae.encode(normalised(raw)) @ sae.W_dec) * own
    assert torch.allclose(out("layers.0", raw, None), want, atol=1e-5)
    assert torch.allclose(steered(look, Steer("layers.0", sae, {3: 2.0})), before, atol=1e-6)


def test_wrong_answers_are_predicted_from_what_tells_them():
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(200, 12))
    wrong = (concepts[:, 4] + 0.3 * rng.normal(size=200) > 0.8).astype(float)
    assert goodness(wrong, predicted(concepts, wrong))["AUC"] > 0.9  # measured .97; of chance .5
    assert abs(goodness(wrong, predicted(rng.normal(size=(200, 12)), wrong))["AUC"] - 0.5) < 0.2
    number = concepts[:, 2] * 2 + 1
    assert goodness(number, predicted(concepts, number))["r"] > 0.95


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Handwritten digits of 16 patches, trained in seconds."""
    out = tmp_path_factory.mktemp("concepts") / "run"
    made = tiny(model__width=32, model__heads=4, model__layers=2, model__hidden=64, steps=120, checkpoint__every=0,
                optimizer__lr=0.003)  # fmt: skip
    made.modalities["image"].patch = 2
    made.tasks, made.baseline = made.tasks[:1], False
    made.tasks[0].batch = 32
    train_run(made, out, quiet=True)
    return out


def test_the_stranger_a_picture_the_more_concepts_are_active(run, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "STEPS", 400)
    _, prepared, objective = load_run(run)
    task = prepared.tasks["digits"]
    look = Concepts()
    found = look.run(task, task.source.open("test"), objective)
    for line in found["layers"]:
        active = [line["active"][kind] for kind in KINDS]
        assert active[0] < active[1] < active[3] and active[0] < active[2] < active[3], line
        assert line["unexplained"]["natural"] < line["unexplained"]["noise"]
    path = save(tmp_path, "concepts", found, look.files())
    weights = load_file(path.parent / "concepts" / "layers.1" / "sae_weights.safetensors")
    assert weights["W_enc"].shape == (32, 128)
    assert len(found["concepts"]) == 8 and all(one["heats"][0]["shape"] == [4, 4] for one in found["concepts"])
    for one in found["concepts"]:
        assert one["steer"]["after"] > one["steer"]["before"] + 0.02
    text = concepts_section(found)
    assert text.count("<img") == 8 and "of noise alone" in look.table(found)
    with pytest.raises(UserError, match="give at least 20"):
        Concepts().run(task, task.source.open("test").only([0, 1]), objective)
