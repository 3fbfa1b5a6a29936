"""Packed equals one by one, to 1e-5 in fp32, gradients too: every modality, every task, causal and hidden masks."""

from functools import partial
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.objective import Objective
from generalist.nn.attention.parts import equal, shared, visible
from generalist.nn.encoder import Encoder
from generalist.recipe.specs import ModelSpec
from generalist.recipes.demo import demo
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.train.prepare import prepare

TOLERANCE = 1e-5
WIDTH = 24
TASKS = [task.name for task in demo().tasks]


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float(((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).detach())


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def assert_same(packed: dict[str, torch.Tensor], single: dict[str, torch.Tensor], least: float = 0.0) -> None:
    """Equal gradients to 1e-5 of the largest entry (or of `least`, where larger terms cancelled to give them)."""
    assert packed.keys() == single.keys() and packed
    scale = max(least, *(float(g.abs().max()) for g in single.values()))
    worst = {name: float((packed[name] - grad).abs().max()) / scale for name, grad in single.items()}
    assert max(worst.values()) <= TOLERANCE, {name: f"{w:.1e}" for name, w in worst.items() if w > TOLERANCE}


@pytest.fixture(scope="module")
def run():
    """The demo's tasks with a small model whose layers all differ from the identity."""
    recipe = demo()
    recipe.model = ModelSpec(width=WIDTH, layers=2, heads=3, hidden=40, layer_scale=0.5, final_norm=True)
    prepared = prepare(recipe)
    model = prepared.model(recipe).eval()
    return prepared, Objective(model, prepared.sets, prepared.modalities)


@pytest.mark.parametrize("name", TASKS)
def test_a_packed_batch_of_every_task_gives_the_features_and_gradients_of_its_samples_one_by_one(run, name):
    prepared, objective = run
    model, task, records = objective.model, prepared.tasks[name], prepared.records[name]
    rng = torch.Generator().manual_seed(3)
    examples = [task.example(records[i * 7], rng) for i in range(5)]
    sequences = [e.inputs for e in examples] + [e.partner for e in examples if e.partner]
    weight = None
    results = []
    for parts in ([sequences], [[s] for s in sequences]):
        features = torch.cat([model.features(pack(part)) for part in parts])
        weight = torch.randn_like(features) if weight is None else weight
        (features * weight).sum().backward()
        results.append((features.detach(), gradients(model)))
    (packed, packed_grad), (single, single_grad) = results
    assert error(packed, single) <= TOLERANCE
    assert_same(packed_grad, single_grad)


@pytest.mark.parametrize("name", [n for n, t in zip(TASKS, demo().tasks, strict=True) if not t.symmetric])
def test_the_loss_of_a_packed_batch_is_the_mean_over_the_answers_of_its_samples_and_so_is_its_gradient(run, name):
    prepared, objective = run
    task, records = prepared.tasks[name], prepared.records[name]
    rng = torch.Generator().manual_seed(5)
    examples = [task.example(records[i * 3], rng) for i in range(5)]
    batch = task.collate(examples)
    packed = objective(batch) / batch.count
    packed.sum().backward()
    packed_grad = gradients(objective)
    single = torch.zeros(1)
    for example in examples:
        loss = objective(task.collate([example])) / batch.count
        loss.sum().backward()
        single += loss.detach()
    assert error(packed.detach(), single) <= TOLERANCE
    assert_same(packed_grad, gradients(objective), least=1.0)


def test_captions_trained_in_one_pass_equal_the_same_captions_one_by_one():
    text = Text(
        tokenizer=train_bpe(["a dog runs", "two cats", "the old man sleeps here"] * 3, 280).to_str(), max_length=16
    )
    summary = Summary()
    config = GeneralistConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        modalities={"summary": {}, "text": text.settings()},
    )
    model = GeneralistModel(config).eval()
    captions = ["a dog runs", "two cats", "the old man sleeps here", "a cat"]
    sequences = [[summary.span(None), text.span("dog"), text.caption_span(c)] for c in captions]
    together = model.features(pack(sequences))
    alone = torch.cat([model.features(pack([s])) for s in sequences])
    assert error(together, alone) <= TOLERANCE
    # and the answer slots of one pass are those of word-by-word inference
    ids = text.ids(captions[2])
    first = sum(len(s[-1].asked) for s in sequences[:2])
    for t in range(len(ids)):
        step = model.features(pack([[summary.span(None), text.span("dog"), text.next_span(ids[:t])]]))
        assert error(step[0], together[first + t]) <= TOLERANCE


# --- the encoder alone, on sequences of any make-up, against attention with one dense mask ---


def dense(encoder: Encoder, x: torch.Tensor, layout) -> torch.Tensor:
    """One sequence through the encoder with plain softmax attention and the mask rule written out."""
    seen = visible(layout.block[None], layout.hidden[None])[0, 0]
    for layer in encoder.layers:
        h = layer.norm1(x)
        q, k, v = layer.mixer.qkv(h).view(len(x), 3, layer.mixer.heads, -1).unbind(1)
        scores = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
        mixed = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        mixed = layer.mixer.out(torch.einsum("hij,jhd->ihd", mixed, v).flatten(1))
        x = x + (mixed if layer.gamma1 is None else layer.gamma1 * mixed)
        mixed = layer.mlp(layer.norm2(x), At(layout))
        x = x + (mixed if layer.gamma2 is None else layer.gamma2 * mixed)
    return x if encoder.norm is None else encoder.norm(x)


PARTS = [equal, partial(shared, half=False), partial(shared, half=True)]  # on a CPU, on a GPU
flags = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=9)


@settings(max_examples=25, deadline=None)
@given(st.lists(flags, min_size=1, max_size=7), st.sampled_from([0.0, 0.3]), st.booleans(), st.sampled_from(PARTS))
def test_any_mixture_of_masked_causal_and_hidden_tokens_equals_dense_attention(sequences, gain, final_norm, parts):
    torch.manual_seed(0)
    config = GeneralistConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        layer_scale=gain,
        final_norm=final_norm,
    )
    encoder = Encoder(config)
    spans = []
    for tokens in sequences:
        mask, causal, hidden = (torch.tensor(f) for f in zip(*tokens, strict=True))
        mask[0] = True
        x = torch.randn(len(tokens), 12)
        spans.append([Span("x", {"x": x}, len(tokens), mask=mask, causal=causal, hidden=hidden)])
    packed = pack(spans)
    x = packed.data["x"]["x"][packed.row].requires_grad_()
    with mock.patch("generalist.nn.attention.attend.parts_of", lambda at, x, listed: parts(at)):
        together = encoder(x, At(packed.layout))[0]
    weight = torch.randn_like(together)
    (together * weight).sum().backward()
    grads, slope = gradients(encoder), x.grad
    for number, span in enumerate(spans):
        own = packed.owner == number
        alone = pack([span])
        y = alone.data["x"]["x"][alone.row].requires_grad_()
        expected = dense(encoder, y, alone.layout)
        (expected * weight[own]).sum().backward()
        assert (together[own] - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.detach().abs().max()))
        assert (slope[own] - y.grad).abs().max() <= TOLERANCE * max(1.0, float(y.grad.abs().max()))
    assert_same(grads, gradients(encoder))


def test_nothing_is_padded_on_a_stream_of_several_modalities(run):
    """Rows computed by the encoder over real tokens: at most 2 % more."""
    prepared, _ = run
    rows = real = 0
    for name, task in prepared.tasks.items():
        records = prepared.records[name]
        batch = task.collate([task.example(records[i]) for i in range(8)])
        packs = [batch.inputs] + ([batch.partners] if batch.partners is not None else [])
        for packed in packs:
            rows += sum(g.count * g.length for g in packed.layout.groups)
            real += int(torch.bincount(packed.owner).sum())
    assert real <= rows <= 1.02 * real
