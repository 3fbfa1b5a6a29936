"""Distillation inside the law: its loss by hand, what a run logs, resumes and refuses, and two ranks as one."""

import json
import math
import signal

import pytest
import torch
from test_resume import same, stop_at, untimed, weights

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.model.ranked import Ranked
from generalist.recipe.method import METHOD_NAMES
from generalist.run import train as run
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.train.events import read_log
from generalist.train.methods.distill import divergence
from generalist.train.methods.table import METHODS, build_method
from generalist.train.prepare import prepare
from tests.tiny import tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A saved model twice as wide, of two layers."""
    folder = tmp_path_factory.mktemp("teacher")
    words = ["model.width=32", "model.layers=2", "steps=2", "checkpoint.every=0", "baseline=false"]
    assert main(["train", "tests/tiny.py", *words, "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def test_the_names_that_a_recipe_may_give_are_those_of_the_table():
    assert tuple(METHODS) == METHOD_NAMES


def test_the_divergence_is_the_one_worked_out_by_hand():
    """Teacher (2/3, 1/3), student (1/2, 1/2) at temperature 1; the second row is not asked."""
    scores = torch.tensor([[math.log(2), 0.0], [5.0, 0.0]]).double(), torch.zeros(2, 2).double()
    real = torch.tensor([True, False])
    by_hand = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert float(divergence(*scores, 1.0, real)) == pytest.approx(by_hand)
    # at temperature 2 the teacher's odds are sqrt(2); a column that stands for three members counts three times
    p = math.sqrt(2) / (1 + math.sqrt(2))
    assert float(divergence(*scores, 2.0, real)) == pytest.approx(
        p * math.log(2 * p) + (1 - p) * math.log(2 - 2 * p), rel=1e-4
    )
    weighted = divergence(*scores, 1.0, real, torch.tensor([0.0, math.log(3)]))
    assert float(weighted) == pytest.approx(2 / 5 * math.log(8 / 5) + 3 / 5 * math.log(4 / 5))


def at_work(made, objective=None):
    """The prepared parts of a recipe, its objective, and its method at work."""
    prepared = prepare(made)
    objective = objective or prepared.objective(made)
    return prepared, objective, build_method(made, objective)


@pytest.mark.parametrize("policy", ["exact", "sampled", "cached"])
def test_the_loss_is_the_law_and_the_teachers_ranking_of_the_same_candidates(teacher, policy):
    keys = {"distill__teacher": str(teacher), "distill__weight": 0.5, "distill__temperature": 3.0}
    made = tiny(**keys, candidates__digits__policy=policy, candidates__digits__size=1)
    prepared, objective, added = at_work(made)
    plain = prepared.objective(made)
    plain.load_state_dict(objective.state_dict())
    batch = Steps({"digits": prepared.feeds()["digits"]}, Schedule(["digits"], [1.0], 0, False), 0)[0]
    seen: list[Ranked] = []
    objective.extra = lambda ranked: seen.append(ranked) or added.loss(ranked)
    torch.manual_seed(5)
    total = objective.train()(batch)
    torch.manual_seed(5)
    law = plain.train()(batch)
    (ranked,) = seen
    (theirs,) = ranked.by(added.method.teacher)
    kl = divergence(theirs, ranked.scores[0], 3.0, ranked.real, ranked.log_weight)
    assert float(kl.detach()) > 0.01 and theirs.shape == ranked.scores[0].shape
    assert theirs.shape[1] < 10 if policy == "sampled" else theirs.shape[1] == 10
    assert total.item() == pytest.approx((law + 0.5 * 9 * kl).item(), rel=1e-6)
    assert float(added.take()) == pytest.approx(float((total - law).detach()), rel=1e-4) and float(added.take()) == 0
    grads = {n: p.grad for n, p in added.method.teacher.named_parameters()}
    total.sum().backward()
    assert all(g is None for g in grads.values()) and not any("teacher" in name for name in objective.state_dict())
    objective.eval()
    assert float(objective(batch)) == float(plain.eval()(batch))  # results are the law's alone


def test_a_model_that_teaches_itself_adds_nothing(teacher, tmp_path):
    made = tiny(distill__teacher=str(teacher))
    prepared, objective, added = at_work(made)
    objective.model.save_pretrained(tmp_path)
    prepared.processor().save_pretrained(tmp_path)
    _, objective, added = at_work(tiny(distill__teacher=str(tmp_path)), objective)
    batch = Steps({"wine": prepared.feeds()["wine"]}, Schedule(["wine"], [1.0], 0, False), 0)[0]
    objective.train()(batch)
    assert abs(float(added.take())) < 1e-5


def test_a_run_learns_from_its_teacher_and_logs_it_under_its_name(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    more = {"steps": 4, "checkpoint__every": 0}
    train_run(tiny(distill__teacher=str(teacher), **more), tmp_path / "taught", quiet=True)
    train_run(tiny(**more), tmp_path / "alone", quiet=True)
    taught, alone = read_log(tmp_path / "taught"), read_log(tmp_path / "alone")
    assert all(e["distill"] > 0 for e in taught) and not any("distill" in e for e in alone)
    assert taught[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-6)  # the law's own part of the first step
    assert taught[3]["loss"] != pytest.approx(alone[3]["loss"], rel=1e-4)
    assert json.loads((tmp_path / "taught" / "method.json").read_text())["kind"] == "distill"


def test_a_distilled_run_that_was_stopped_and_resumed_is_the_run_that_never_stopped(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "finish", lambda recipe, prepared, objective, out, *a: run.save_model(
        prepared, objective.model, out))  # fmt: skip
    keys = {"distill__teacher": str(teacher), "model__drop_path": 0.3, "steps": 8}
    train_run(tiny(**keys), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        stop_at(5, patch, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train_run(tiny(**keys), tmp_path / "cut", quiet=True)
    train_run(tiny(**keys), tmp_path / "cut", resume=True, quiet=True)
    assert untimed(tmp_path / "cut") == untimed(tmp_path / "whole")
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_resume_with_another_teacher_is_refused(teacher, tmp_path, monkeypatch):
    import shutil

    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    own = tmp_path / "teacher"
    shutil.copytree(teacher / "model", own)
    train_run(tiny(distill__teacher=str(own), steps=4), tmp_path / "run", quiet=True)
    held = load_file(own / "model.safetensors")
    held["log_scales.default"] += 0.01
    save_file(held, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="another model or method"):
        train_run(tiny(distill__teacher=str(own), steps=4), tmp_path / "run", resume=True, quiet=True)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"method__kind": "distill"}, r"needs distill\.teacher"),
        ({"method__kind": "destill"}, r"did you mean 'distill'"),
        ({"distill__teacher": "nowhere"}, r"distill\.teacher='nowhere' holds no model"),
        ({"distill__temperature": 0}, r"0 < temperature"),
        ({"distill__weight": -1}, r"0 <= weight"),
        ({"modalities__image__patch": 2, "distill__teacher": "TEACHER"}, r"'image' has patch=4, the recipe 2"),
        ({"tasks__digits__scale": "own", "distill__teacher": "TEACHER"}, r"no logit scale 'own'"),
    ],
)
def test_what_cannot_teach_is_said_in_one_line_before_the_first_step(teacher, keys, said):
    with pytest.raises(UserError, match=said) as told:
        at_work(tiny(**{k: str(teacher) if v == "TEACHER" else v for k, v in keys.items()}))
    assert "\n" not in str(told.value)


def test_kind_none_leaves_the_law_alone(teacher):
    assert at_work(tiny(distill__teacher=str(teacher), method__kind="none"))[2] is None
