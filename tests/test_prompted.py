"""Several prompt sets in one batch: each sequence wears its own, or none, and gets what it gets alone."""

import clients
import pytest
import torch

from generalist.adapt.kept import read_part, save_part, tunable, wearing
from generalist.adapt.prompted import PromptedModel
from generalist.data.base.errors import UserError

CLASSES = ["a red seven", "a blue nine", "some other words"]


def tuned(base, seed: int, **config):
    """A model on the frozen weights of `base` whose prompts, norms and linear head are its own."""
    model, _ = clients.model_and_processor(**config)
    model.load_state_dict(base.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in tunable(model).values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A base model without prompts, its processor, two tuned models of 5 and 2 prompts, and their files."""
    folder = tmp_path_factory.mktemp("parts")
    base, processor = clients.model_and_processor()
    owners = {
        "long": tuned(base, 1, prompts=5, linear_heads={"default": 3}),
        "short": tuned(base, 2, prompts=2, separate_prompts=True),
    }
    for name, owner in owners.items():
        save_part(owner, folder / name)
    return base.eval(), processor, owners, {name: folder / name for name in owners}


def pictures_with_text(processor) -> list:
    """Seven inputs of one, two or three spans and of different lengths; two sets and none take turns."""
    sized = [(12, 8), (8, 12), (12, 12), (4, 8), (12, 8), (8, 8), (12, 4)]
    pictures = processor(image=[clients.picture(h, w, i) for i, (h, w) in enumerate(sized)])
    words = processor(text=[" ".join(["seven"] * (1 + i % 3)) for i in range(7)])
    return [p + t[1:] if i % 2 else p for i, (p, t) in enumerate(zip(pictures, words, strict=True))]


PROMPTS = ["long", None, "short", "long", "short", None, "long"]


def test_each_sequence_of_a_batch_wears_its_own_prompts_and_gets_what_it_gets_alone(sets):
    base, processor, owners, files = sets
    model = PromptedModel(base, files)
    inputs, candidates = pictures_with_text(processor), processor.candidates(CLASSES)
    mixed = model.rank(inputs, candidates, PROMPTS)
    unit = model.encode(inputs, PROMPTS)
    assert mixed.shape == (7, 3)
    for i, name in enumerate(PROMPTS):
        own = owners.get(name, base)  # the model that was tuned, or the base for None
        torch.testing.assert_close(mixed[i : i + 1], own.rank(inputs[i : i + 1], candidates), rtol=0, atol=1e-5)
        torch.testing.assert_close(unit[i : i + 1], own.encode(inputs[i : i + 1]), rtol=0, atol=1e-5)
    plain = base.rank(inputs, candidates)
    assert all((mixed[i] - plain[i]).abs().max() > 1e-3 for i, name in enumerate(PROMPTS) if name)


def test_one_set_or_none_is_one_pass_and_nothing_stays_on(sets, monkeypatch):
    base, processor, owners, files = sets
    model = PromptedModel(base, files)
    inputs, candidates = pictures_with_text(processor), processor.candidates(CLASSES)
    passes, before = [], {name: value.clone() for name, value in base.state_dict().items()}
    forward = base.encoder.forward
    monkeypatch.setattr(base.encoder, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k))
    for name, expected in ((None, base), ("long", owners["long"])):
        torch.testing.assert_close(model.rank(inputs, candidates, [name] * 7), expected.rank(inputs, candidates))
    assert len(passes) == 3  # one for none, one for the one set, one of `base` that is compared with
    model.encode(inputs, PROMPTS)
    assert len(passes) == 6  # a pass for each of three
    after = base.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[n], v) for n, v in before.items())


def test_answers_asked_at_several_tokens_come_back_in_their_order(sets):
    base, processor, _, files = sets
    inputs = [[spans[0].ask([0]), *spans[1:]] for spans in pictures_with_text(processor)]
    several = []
    for i, spans in enumerate(inputs):
        last = spans[-1]
        asked = list(range(min(last.length, 1 + i % 2)))
        several.append([spans[0].ask([]), *spans[1:-1], last.ask(asked)] if last.modality == "image" else None)
    kept = [i for i, spans in enumerate(several) if spans is not None]
    prompts = [PROMPTS[i] for i in kept]
    model, candidates = PromptedModel(base, files), processor.candidates(CLASSES)
    mixed = model.rank([several[i] for i in kept], candidates, prompts)
    alone = [model.rank([several[i]], candidates, [name]) for i, name in zip(kept, prompts, strict=True)]
    torch.testing.assert_close(mixed, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("router", ["attribute", "token", "modality"])
def test_sets_wear_experts_too(router, tmp_path):
    config = {"moe_placement": "odd", "moe_router": router, "moe_experts": 3, "moe_noise": 0.0}
    base, processor = clients.model_and_processor(**config)
    owner = tuned(base, 3, prompts=3, **config)
    save_part(owner, tmp_path / "part")
    model = PromptedModel(base.eval(), {"a": tmp_path / "part"})
    inputs, candidates = pictures_with_text(processor), processor.candidates(CLASSES)
    mixed = model.rank(inputs, candidates, ["a", None] * 3 + ["a"])
    torch.testing.assert_close(mixed[::2], owner.rank(inputs[::2], candidates), rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed[1::2], base.rank(inputs[1::2], candidates), rtol=0, atol=1e-5)


def test_a_prompt_file_goes_onto_the_model_that_it_was_tuned_from_and_onto_no_other(sets, tmp_path):
    _, processor, owners, files = sets
    inputs = pictures_with_text(processor)
    with wearing(owners["long"], read_part(files["short"], owners["long"])) as worn:  # fewer prompts, no linear head
        torch.testing.assert_close(worn.encode(inputs), owners["short"].encode(inputs))
    wider, _ = clients.model_and_processor(hidden_size=36)
    other, _ = clients.model_and_processor()
    with torch.no_grad():
        other.encoder.layers[1].mixer.out.weight.add_(0.1)
    for model in (wider, other):
        with pytest.raises(UserError, match="another model"):
            PromptedModel(model, files)


def test_the_summary_bias_is_put_on_a_model_without_one(tmp_path):
    base, _ = clients.model_and_processor()
    owner = tuned(base, 4, prompts=2)
    bias = torch.linspace(-1, 1, 24)[None]
    owner.tokenizers["text"].spe_bias = torch.nn.Parameter(bias.clone())
    save_part(owner, tmp_path / "part")
    asked = [[base.modalities["text"].span(base.modalities["text"].read("a <|spe|> seven")).ask([0])]]
    model = PromptedModel(base.eval(), {"a": tmp_path / "part"})
    torch.testing.assert_close(model.encode(asked, ["a"]), owner.eval().encode(asked))
    assert base.tokenizers["text"].spe_bias is None
    owner.tokenizers["text"].spe_bias = None
    assert (model.encode(asked, ["a"]) - owner.encode(asked)).abs().max() > 1e-3


def test_wrong_use_is_one_line(sets):
    base, processor, _, files = sets
    model, inputs = PromptedModel(base, files), pictures_with_text(processor)
    candidates = processor.candidates(CLASSES)
    for call, message in (
        (lambda: model.rank(inputs, candidates, ["long"]), "1 prompts for 7 inputs"),
        (lambda: model.rank(inputs, candidates, ["lnog"] * 7), "did you mean"),
        (lambda: model.rank(inputs, candidates[:1], PROMPTS), "1 candidate given"),
        (lambda: model.rank(inputs, candidates[:2], PROMPTS), "3 classes, 2 candidates"),
        (lambda: model.remove("none"), "no prompts 'none'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    model.remove("short")
    with pytest.raises(UserError, match="no prompts 'short'"):
        model.encode(inputs, PROMPTS)


@pytest.mark.parametrize(("inputs", "candidates"), [(5, 3), (0, 4), (4, 0)])
def test_prompts_of_inputs_and_candidates_may_differ_in_number(inputs, candidates, tmp_path):
    """Each side is what a model with only its own prompts for both sides makes of it."""
    both, processor = clients.model_and_processor(prompts=inputs, candidate_prompts=candidates)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in tunable(both).values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.5)
    own = {}
    for side, vectors in (("input", both.prompts.vectors), ("candidate", both.prompts.candidate_vectors)):
        own[side], _ = clients.model_and_processor(prompts=vectors.shape[1])
        state = {k: v for k, v in both.state_dict().items() if not k.startswith("prompts.")}
        own[side].load_state_dict(state | ({"prompts.vectors": vectors} if vectors.shape[1] else {}))
    pictures, names = pictures_with_text(processor), processor.candidates(CLASSES)
    f, g = own["input"].encode(pictures), own["candidate"].encode(names)
    both.save_pretrained(tmp_path)
    loaded = type(both).from_pretrained(tmp_path).eval()
    for model in (both, loaded):
        torch.testing.assert_close(model.encode(pictures), f)
        torch.testing.assert_close(model.encode(names, side="candidate"), g)
        torch.testing.assert_close(
            model.rank(pictures, names), (f @ g.T * model.log_scale("default").exp()).softmax(-1)
        )
        assert not torch.allclose(model.encode(names), g, atol=1e-2)  # by default an input
        tensors = processor(text=CLASSES, return_tensors="pt")
        for found, side in ((model.get_text_features(**tensors), "candidate"), (model(**tensors), "input")):
            unit = torch.nn.functional.normalize(found.pooler_output, dim=-1)
            torch.testing.assert_close(unit, own[side].encode(names))
        other = torch.nn.functional.normalize(model.get_text_features(**tensors, side="input").pooler_output, dim=-1)
        torch.testing.assert_close(other, own["input"].encode(names))
        both_sides = model(**processor(text=CLASSES, table=clients.ROWS[:2], return_tensors="pt"))
        table = processor(table=clients.ROWS[:2])
        torch.testing.assert_close(both_sides.logits.softmax(-1), model.rank(table, names))
    save_part(both, tmp_path / "part")
    base, _ = clients.model_and_processor()
    base.load_state_dict(both.state_dict(), strict=False)
    worn = PromptedModel(base.eval(), {"part": tmp_path / "part"})
    torch.testing.assert_close(worn.encode(names, ["part"] * 3, "candidate"), g)
    torch.testing.assert_close(worn.rank(pictures, names, ["part"] * 7), both.rank(pictures, names))
