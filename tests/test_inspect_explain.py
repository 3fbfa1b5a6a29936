"""Explanations: rollout equals the published tensors, measures by hand, the mask finds the one word that counts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import Listed, modalities

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.zero_shot import Judge
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.inspect.asking.disturb import blanked, contents, noisy, shuffled
from generalist.inspect.asking.look import looks
from generalist.inspect.explain.explain import Explain
from generalist.inspect.explain.faithful import average_drop, drawn_anew, increase, masked, topped, unit
from generalist.inspect.explain.rollout import flows, rollout
from generalist.inspect.explain.tame import Tame, smoothness
from generalist.report.sections.inspect import explain_section
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.modalities import modality_settings

ROLLOUT = Path(__file__).resolve().parents[1].parent / "shared" / "reference" / "systems" / "rollout.safetensors"
WORDS = ["red", "green", "blue"]
# the answer is one word of five, the others say nothing
ROWS = [
    {"id": str(i), "text": " ".join(word if i % 5 == at else other for at, other in enumerate("abcde")), "label": word}
    for i, word in enumerate(WORDS * 16)
]  # fmt: skip


def model_of(kinds, layers=2, **more):
    config = GeneralistConfig(hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=8,
                              modalities=modality_settings(kinds), initial_scale=20.0, **more)  # fmt: skip
    torch.manual_seed(0)
    return GeneralistModel(config).eval()


def bound(rows, classes, kinds, model, inputs):
    task = Classify(name="same", source=Listed({"train": rows}, {"classes": classes}), inputs=inputs, scale="default")
    records = task.source.open("test")
    task.bind(kinds, None, records.info)
    task.adopt(task.candidate_set(records))
    return task, records, Judge(model, task)


@pytest.fixture(scope="module")
def same():
    """A model that says the mean of the words, by construction: the word that is a candidate decides, others are 0."""
    kinds = modalities()
    model = model_of(kinds)
    table = model.tokenizers["text"].token.weight
    known = [int(kinds["text"].ids(word)[0]) for word in WORDS]
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.mixer.qkv.weight[:32] = 0
        kept = table[known].clone()
        for weight in model.tokenizers["text"].parameters():
            weight.zero_()
        table[known] = kept
    return bound(ROWS, WORDS, kinds, model, {"text": "text"})


@pytest.mark.skipif(not ROLLOUT.is_file(), reason="the published tensors are not beside the checkout")
def test_rollout_is_the_published_one():
    held = load_file(ROLLOUT)
    found = rollout([held[f"attention_{i}"] for i in range(3)], 0.9, published=True)[0, 0, 1:]
    assert torch.equal(found / found.max(), held["rollout_official"])


def test_rows_of_a_rollout_sum_to_one_and_without_attention_a_token_is_its_own():
    weights = [torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(i)).softmax(-1) for i in range(3)]
    for discard in (0.0, 0.9):
        found = rollout(weights, discard)
        assert torch.allclose(found.sum(-1), torch.ones(2, 5), atol=1e-6)
    alone = torch.eye(5).expand(2, 3, 5, 5)
    assert torch.equal(rollout([alone, alone], 0.0), torch.eye(5).expand(2, 5, 5))
    even = torch.full((1, 2, 4, 4), 0.25)  # one layer: half of the identity, half of the mean
    assert torch.allclose(rollout([even], 0.0), torch.eye(4) / 2 + 1 / 8)


def test_measures_by_hand():
    p = torch.tensor([0.5, 0.8, 0.2])
    assert average_drop(p, p) == 0 and increase(p, p) == 0
    assert average_drop(p, torch.zeros(3)) == pytest.approx(100) and increase(p, torch.zeros(3)) == 0
    assert average_drop(p, torch.tensor([0.25, 0.9, 0.1])) == pytest.approx(100 * (0.5 + 0 + 0.5) / 3)
    assert increase(p, torch.tensor([0.25, 0.9, 0.1])) == pytest.approx(100 / 3)


def test_a_mask_of_ones_is_the_plain_model_and_the_top_is_the_top(same):
    task, records, objective = same
    look = next(looks(task, records.only([0, 1, 2, 3]), objective))
    blank, ones = blanked(look), torch.ones(len(look.x))
    assert torch.equal(masked(look, blank, ones), look.x)
    assert torch.allclose(masked(look, blank, 1 - ones)[look.open], blank[look.open])
    assert torch.equal(masked(look, blank, 1 - ones)[~look.open], look.x[~look.open])  # the question stays
    heat = torch.arange(len(look.x)).float()
    mask = unit(look, heat)
    for b, own in enumerate(look.by_record(mask)):
        assert own.min() == 0 and own.max() == 1 and len(own) == 6, b
        kept = look.by_record(topped(look, mask, 0.5))[b]
        assert (kept > 0).sum() == 3 and torch.equal(kept[3:], own[3:])
        anew = look.by_record(drawn_anew(look, mask, torch.Generator().manual_seed(1)))[b]
        assert torch.equal(anew.sort().values, own.sort().values)


def test_blank_and_shuffled_words_are_other_ids_at_the_same_places(same):
    task, records, objective = same
    look = next(looks(task, records.only([0, 1]), objective))
    text, tokens = task.modalities["text"], objective.model.tokenizers["text"]
    assert contents(look) == {"text": {"ids": text.spe}}
    want = objective.model.embedding_norm(tokens({"ids": torch.full((6,), text.spe), "position": torch.arange(6)}))
    own = look.open & (look.packed.owner == 0)
    assert torch.allclose(blanked(look)[own], want)
    moved = shuffled(look, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(moved[~look.open], look.x[~look.open])
    # the one word that is not 0 stands somewhere else
    (was,), (now,) = (t[own].abs().sum(1).gt(1e-3).nonzero() for t in (look.x, moved))
    assert was != now and torch.allclose(moved[own][now], look.x[own][was])
    assert torch.equal(shuffled(look, 0.0, torch.Generator()), look.x)
    drawn = noisy(look, look.open, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[~look.open], look.x[~look.open]) and not torch.equal(drawn, look.x)


def test_the_mask_finds_the_word_that_counts_and_the_model_stays_as_it_was(same):
    task, records, objective = same
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    found = Explain().run(task, records, objective)
    assert all(torch.equal(value, before[name]) for name, value in objective.model.state_dict().items())
    assert all(p.requires_grad for p in objective.model.parameters())
    hits = 0
    for one in found["samples"]:
        (heat,) = one["heats"]
        assert len(heat["words"]) == len(heat["values"]["T-TAME"]) == 6
        hits += heat["words"][max(range(6), key=heat["values"]["T-TAME"].__getitem__)] == one["answer"]
    assert hits == len(found["samples"]) == 12  # by chance 2
    measures = found["measures"]  # measured 0 and 53
    assert measures["T-TAME"]["15%"]["AD"] < measures["random"]["15%"]["AD"] - 20
    text = explain_section(found)
    assert text.count('class="in warmed"') == 24 and "T-TAME" in Explain().table(found)


def test_smoothness_and_the_head_by_hand(same):
    task, records, objective = same
    look = next(looks(task, records.only([0]), objective))
    mask = torch.zeros(len(look.x))
    mask[look.open] = torch.tensor([1.0, 0, 0, 2, 0, 0])
    assert float(smoothness(look, mask)) == pytest.approx((1 + 4 + 4 + 0.3 * 1) / 2)
    head = Tame([4, 4], 3)
    assert head.eval()([torch.randn(5, 4)] * 2, torch.randn(5, 3)).shape == (5,)


def test_what_cannot_be_explained_is_said(same):
    task, records, objective = same
    odd = Records([*ROWS[:9], {"id": "odd", "text": 3, "label": "red"}], dict(records.info))
    with pytest.raises(UserError, match=r"task same, record odd: .*expected a str"):
        Explain().run(task, odd, objective)
    with pytest.raises(UserError, match="give at least 8"):
        Explain().run(task, records.only([0, 1]), objective)
    kinds = modalities()
    no_attention = model_of(kinds, mixers=["retention", "retention"])
    look = next(looks(*bound(ROWS[:2], WORDS, kinds, no_attention, {"text": "text"})))
    with pytest.raises(UserError, match="rollout needs attention"):
        flows(look)
