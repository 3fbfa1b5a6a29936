"""How training uses a candidate set: every member, a sample that is right on average, or a kept encoding."""

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Batch
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.candidates import Compared, answers, corrected, draw, restrict, sampled_loss
from generalist.model.objective import Objective
from generalist.recipe.json import from_json, to_json
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe
from generalist.recipe.specs import CandidateSpec
from generalist.tasks.candidates.likelihood import log_likelihood, negative_log_likelihood
from generalist.tasks.candidates.names import Names, Numbers
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text

WORDS = [f"{a}{b}" for a in "bcdfg" for b in ("at", "et", "it", "ot", "ut", "an", "en")]  # 35


def modalities():
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(WORDS)
    return {"summary": Summary(), "text": text, "number": Number()}


@pytest.fixture(scope="module")
def shared_modalities():
    return modalities()


def objective(made, **specs):
    torch.manual_seed(0)
    config = GeneralistConfig(
        hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        modalities=modality_settings(made),
    )  # fmt: skip
    sets = {"words": Names(WORDS), "few": Names(WORDS[:3]), "numbers": Numbers(edges=[-2.0, -1.0, 0.0, 1.0, 2.0])}
    return Objective(GeneralistModel(config), sets, made, {n: CandidateSpec(**s) for n, s in specs.items()})


def batch(made, labels, task="words", smoothing=0.0):
    inputs = pack(
        [
            [made["summary"].span(None).ask([0], label[None]), made["text"].span(WORDS[(7 * i) % 35])]
            for i, label in enumerate(labels)
        ]
    )
    return Batch(task, inputs, task, smoothing=smoothing, count=len(labels))


LABELS = torch.tensor([3, 8, 3, 21, 34])


# --- the sampled denominator ---


def test_a_sample_holds_every_answer_and_draws_the_others_alike():
    kept, counts = torch.tensor([1, 4]), torch.zeros(11)
    for _ in range(3000):
        numbers, weight = draw(kept, 11, 3)
        assert numbers.tolist() == sorted(set(numbers.tolist())) and len(numbers) == 5
        counts[numbers] += 1
        # an answer stands for itself, a drawn member for the nine others over the three drawn
        assert torch.allclose(weight, torch.where(torch.isin(numbers, kept), 0.0, torch.tensor(3.0).log()))
    assert counts[kept].tolist() == [3000, 3000]
    others = counts[[i for i in range(11) if i not in (1, 4)]] / 3000
    assert torch.allclose(others, torch.full((9,), 1 / 3), atol=0.05)  # four standard deviations are 0.034


def test_the_corrected_denominator_is_the_true_one_on_average():
    logits, kept = torch.randn(3, 40) * 2, torch.tensor([5, 0, 33])
    true = logits.exp().sum(-1)
    estimates = []
    for _ in range(4000):
        numbers, weight = draw(kept, 40, 7)
        estimates.append((logits[:, numbers] + weight).exp().sum(-1))
    found = torch.stack(estimates)
    error = (found.mean(0) - true).abs() / (found.std(0) / 4000**0.5)
    assert (error < 4).all(), f"off by {error.tolist()} standard errors"
    plain = torch.stack([logits[:, draw(kept, 40, 7)[0]].exp().sum(-1) for _ in range(200)]).mean(0)
    assert (plain < 0.7 * true).all()  # without the correction it is far too small


def test_the_sampled_loss_and_its_gradient_near_the_exact_ones_as_the_sample_grows():
    torch.manual_seed(1)
    members, labels, scale = torch.randn(60, 9), torch.tensor([4, 4, 17, 52, -1]), torch.tensor([1.0])
    queries = torch.randn(5, 9, requires_grad=True)
    exact, _ = negative_log_likelihood(log_likelihood(queries, members, scale), labels, 0.1)
    (true,) = torch.autograd.grad(exact.sum(), queries)
    off = []
    for size in (4, 20, 57):
        losses, grads = [], []
        for _ in range(200):
            numbers, weight = draw(answers(labels), 60, size)
            unit = torch.nn.functional.normalize
            logits = unit(queries, dim=-1) @ unit(members[numbers], dim=-1).T * scale.exp()
            compared = Compared(queries, members[numbers], restrict(labels, numbers, 60), 60, weight)
            losses.append(sampled_loss(logits, compared, 0.1))
            grads.append(torch.autograd.grad(losses[-1].sum(), queries)[0])
        off.append(float((torch.stack(grads).mean(0) - true).norm() / true.norm()))
        assert abs(float(torch.cat(losses).mean().detach() - exact.detach()) / float(exact.detach())) < 0.05
    assert off[0] > off[1] > off[2] and off[2] < 1e-5, off  # 57 others and 3 answers are all


def test_a_distribution_over_members_keeps_every_column_that_has_mass():
    target = torch.zeros(2, 3, 11)
    target[0, :, 4], target[0, :, 9] = 0.25, 0.75
    target[1] = torch.nan
    numbers, weight = draw(answers(target), 11, 2)
    assert {4, 9} <= set(numbers.tolist())
    kept = restrict(target, numbers, 11)
    assert torch.equal(kept[0].sum(-1), torch.ones(3)) and kept[1].isnan().all()
    logits = torch.randn(2, 3, 4)
    loss = sampled_loss(logits, Compared(logits, logits, kept, 11, weight), 0.0)
    assert torch.allclose(loss, -(kept[0] * corrected(logits, weight)[0]).sum())


# --- the policies in a step ---


def test_a_sample_of_all_is_exact(shared_modalities):
    b = batch(shared_modalities, LABELS, smoothing=0.1)
    exact = objective(shared_modalities)(b)
    for size in (31, 35, 100):  # 31 others and the four answers are all 35
        assert torch.allclose(objective(shared_modalities, words={"policy": "sampled", "size": size})(b), exact)


def test_sampling_encodes_only_the_sample_and_learns_through_it(shared_modalities):
    made = objective(shared_modalities, words={"policy": "sampled", "size": 6})
    seen = count_sequences(made)
    loss = made(batch(shared_modalities, LABELS))
    assert seen == [5 + 6 + 4]  # in one pass
    loss.backward()
    assert made.model.encoder.layers[0].mlp.up.weight.grad.isfinite().all() and float(loss.detach()) > 0


def test_the_kept_encoding_is_renewed_at_every_nth_use_and_constant_in_between(shared_modalities):
    made = objective(shared_modalities, words={"policy": "cached", "every": 3})
    b, seen = batch(shared_modalities, LABELS), count_sequences(made)
    for step in range(7):
        made.zero_grad()
        with torch.no_grad():  # as an optimiser step would
            made.model.tokenizers["text"].token.weight.mul_(1.01).add_(0.01 * torch.randn(1))
        loss = made(b)
        exact = objective_of(made, shared_modalities)(b)
        assert torch.allclose(loss, exact) == (step % 3 == 0)
        loss.backward()
    assert seen == [40, 5, 5, 40, 5, 5, 40]


def test_a_cache_of_age_one_is_exact(shared_modalities):
    b = batch(shared_modalities, LABELS)
    made = objective(shared_modalities, words={"policy": "cached", "every": 1})
    assert torch.equal(made(b), objective(shared_modalities)(b)) and torch.equal(
        made(b), objective(shared_modalities)(b)
    )


def test_a_checkpoint_holds_the_kept_encoding(shared_modalities):
    spec = {"policy": "cached", "every": 4}
    made, other = (objective(shared_modalities, words=spec) for _ in range(2))
    b = batch(shared_modalities, LABELS)
    made(b)
    with torch.no_grad():
        made.model.tokenizers["text"].token.weight.add_(torch.randn(20))
    other.load_state_dict(made.state_dict())
    assert [torch.equal(made(b), other(b)) for _ in range(5)] == [True] * 5


def test_a_set_that_the_step_does_not_use_costs_nothing(shared_modalities):
    made = objective(shared_modalities)
    seen = count_sequences(made)
    made(batch(shared_modalities, torch.tensor([0, 2]), task="few"))
    assert seen == [2 + 3] and set(made._packed) == {("few", None)}


@pytest.mark.parametrize("spec", [{"policy": "sampled", "size": 2}, {"policy": "cached", "every": 50}])
def test_evaluation_is_exact_whatever_the_policy(shared_modalities, spec):
    made = objective(shared_modalities, words=spec)
    b = batch(shared_modalities, LABELS)
    made(b)
    with torch.no_grad():
        made.model.tokenizers["text"].token.weight.add_(torch.randn(20))
        made.model.eval()
        exact = objective_of(made, shared_modalities)
        exact.model.eval()
        assert torch.equal(made(b), exact(b))
        assert torch.equal(made.members("words"), exact.model.features(exact.packed("words"), candidate=True))


def test_members_encoded_in_runs_are_those_encoded_at_once(shared_modalities, monkeypatch):
    made = objective(shared_modalities)
    made.model.eval()
    at_once = made.members("words")
    monkeypatch.setattr("generalist.model.objective.CHUNK", 8)
    assert torch.allclose(made.members("words"), at_once, atol=1e-6)


def test_a_loss_over_all_members_is_not_sampled(shared_modalities):
    with pytest.raises(UserError, match="looks at all its members"):
        objective(shared_modalities, numbers={"policy": "sampled", "size": 2})
    objective(shared_modalities, numbers={"policy": "sampled", "size": 64})  # all four: exact


def test_recipe_keys_choose_the_policy_and_are_saved():
    recipe = load_recipe("demo")
    override(recipe, "candidates.masked_words.policy=sampled")
    override(recipe, "candidates.masked_words.size=64")
    back = from_json(to_json(recipe))
    assert back.candidates["masked_words"] == CandidateSpec(policy="sampled", size=64)
    assert back.candidates["digits"] == CandidateSpec()
    for wrong, message in (
        ("candidates.masked_words.policy=sample", "did you mean 'sampled'"),
        ("candidates.masked_wurds.policy=exact", "candidates.masked_words"),
        ("candidates.digits.size=0", "at least 1"),
        ("candidates.digits.negatives=none", "gathered"),
    ):
        with pytest.raises(UserError, match=message):
            override(load_recipe("demo"), wrong)


def test_a_recipes_policy_reaches_its_objective():
    from generalist.train.prepare import prepare

    recipe = load_recipe("demo")
    recipe.tasks = [t for t in recipe.tasks if t.name == "wine"]
    override(recipe, "candidates.wine.policy=cached")
    made = prepare(recipe).objective(recipe)
    assert made.policies[0].every == 10 and [k for k in made.state_dict() if "kept" in k] == ["policies.0.kept"]


# --- helpers ---


def count_sequences(made) -> list[int]:
    """Fills with the number of sequences of every pass through the encoder."""
    seen: list[int] = []
    encoder = made.model.encoder
    encoder.register_forward_pre_hook(lambda m, a: seen.append(sum(g.count for g in a[1].groups)))
    return seen


def objective_of(made, given):
    """Another objective, exact, with the weights of `made`."""
    other = objective(given)
    other.model.load_state_dict(made.model.state_dict())
    return other
