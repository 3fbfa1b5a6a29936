"""Candidates encoded once: the same probabilities, not encoded again, never of other weights or questions."""

import clients
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.model.ask import ask
from generalist.model.kept import Kept
from generalist.tasks.candidates.names import Names
from generalist.tasks.kinds.classify import Classify

NAMES = ["a red seven", "a blue nine", "some words"]


@pytest.fixture
def made():
    return clients.model_and_processor(zero_shot_scale="default")


def inputs(processor, seed=0):
    return processor(image=[clients.picture(12, 12, seed + i) for i in range(3)])


def tokens(model, run):
    """What `run` gives, and how many tokens went through the first layer for it."""
    seen = []
    hook = model.encoder.layers[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    found = run()
    hook.remove()
    return found, sum(seen)


def test_what_is_encoded_once_ranks_as_the_sequences_do(made):
    model, processor = made
    sequences, own = processor.candidates(NAMES), inputs(processor)
    wanted, whole = tokens(model, lambda: model.rank(own, sequences))
    encoded = model.candidates(sequences)
    found, alone = tokens(model, lambda: model.rank(own, encoded))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert len(encoded) == 3 and alone == 30 < whole  # three pictures of nine patches
    torch.testing.assert_close(found.sum(-1), torch.ones(3))


@pytest.mark.parametrize("change", ["step", "load", "data"])
def test_other_weights_are_never_answered_for(made, change):
    model, processor = made
    own, encoded = inputs(processor), model.candidates(processor.candidates(NAMES))
    for _ in range(3):
        before = model.rank(own, processor.candidates(NAMES))
    weight = model.encoder.layers[0].mlp.up.weight
    if change == "step":
        with torch.no_grad():
            weight.mul_(-1.5)
    elif change == "load":
        model.load_state_dict({k: v + 0.3 * torch.randn_like(v) for k, v in model.state_dict().items()})
    else:  # behind autograd's back, as a training loop may; whoever does so goes through train()
        model.train()
        weight.data *= -1.5
        model.eval()
    after = model.rank(own, processor.candidates(NAMES))
    fresh = model.log_likelihood(own, [list(s) for s in processor.candidates([*NAMES, "more"])][:3]).exp()
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, fresh, atol=1e-6, rtol=1e-5)
    if change != "data":
        with pytest.raises(UserError, match=r"weights changed since .* call model.candidates"):
            model.rank(own, encoded)


def test_a_list_that_comes_again_is_not_encoded_again(made):
    model, processor = made
    own, counts, found = inputs(processor), [], []
    for _ in range(4):
        p, count = tokens(model, lambda: model.rank(own, processor.candidates(NAMES)))
        found.append(p)
        counts.append(count)
    assert counts[0] == counts[1] > counts[2] == counts[3] == 30
    for p in found[1:]:
        torch.testing.assert_close(p, found[0], atol=1e-6, rtol=1e-5)
    other = model.rank(own, processor.candidates(NAMES[::-1]))
    torch.testing.assert_close(other, found[0].flip(-1), atol=1e-6, rtol=1e-5)


def test_a_task_asked_again_and_a_pipelines_tensors(made):
    model, processor = made
    records = [{"image": clients.picture(12, 12, i)} for i in range(3)]

    def answers(names):
        task = Classify(name="seen", source=None, inputs={"image": "image"}, scale="default")
        task.bind(processor.built, Names(names), {})
        return tokens(model, lambda: torch.tensor([a.probabilities for a in ask(model, task, records)]))

    first, again, third = answers(NAMES), answers(NAMES), answers(NAMES)
    assert first[1] == again[1] > third[1] == 30
    torch.testing.assert_close(first[0], third[0])
    batch = processor(
        images=[clients.picture(12, 12, i) for i in range(3)], text=NAMES, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        runs = [tokens(model, lambda: model(**batch).logits_per_image) for _ in range(3)]
    assert runs[0][1] == runs[1][1] > runs[2][1] == 30
    torch.testing.assert_close(runs[0][0], runs[2][0])
    _, with_gradient = tokens(model, lambda: model(**batch).logits_per_image)
    assert with_gradient == runs[0][1]


def test_experts_that_look_at_the_question_are_not_mixed_up():
    model, processor = clients.model_and_processor(moe_placement="all", moe_router="attribute", moe_experts=3)
    sequences = processor.candidates(NAMES)
    for_sounds = model.candidates(sequences, inputs=["audio"])
    for_texts = model.candidates(sequences, inputs=["text"])
    assert (for_sounds.features - for_texts.features).abs().max() > 1e-4
    texts = processor(text=["some other words", "a blue nine"])
    wanted = model.rank(texts, sequences)
    torch.testing.assert_close(model.rank(texts, for_texts), wanted, atol=1e-6, rtol=1e-5)
    with pytest.raises(UserError, match="answers to other and are asked as answers to text"):
        model.rank(texts, for_sounds)


def test_what_is_kept_stays_within_its_room():
    kept = Kept(room=100)
    for key in "abcabc":
        kept.again(key, None, lambda: torch.zeros(10))  # 40 bytes each
    assert list(kept.found) == ["b", "c"] and kept.used == 80
    kept.again("large", None, lambda: torch.zeros(99))
    assert len(kept.again("large", None, lambda: torch.zeros(99))) == 99 and list(kept.found) == ["b", "c"]
