"""Paths sum to what is delivered, taking all but one away leaves that one; kept tokens are those that go on."""

import pytest
import torch
from small import modalities
from test_inspect_explain import ROWS, WORDS, bound, model_of

from generalist.data.base.errors import UserError
from generalist.inspect.asking.look import looks
from generalist.inspect.keep import KeptTokens
from generalist.inspect.paths import PathEffects, shares
from generalist.nn.paths import Paths, paths_of
from generalist.report.sections.inspect import keep_section, paths_section
from generalist.tokenizers_mod.vision.image import Image


@pytest.fixture(scope="module")
def words():
    kinds = modalities()
    return bound(ROWS[:12], WORDS, kinds, model_of(kinds), {"text": "text"})


def test_the_paths_sum_to_what_is_delivered_and_a_path_taken_out_is_missing_from_the_end_alone(words):
    task, records, objective = words
    look, encoder = next(looks(task, records, objective)), objective.model.encoder
    names = ["embedded", "layers.0.mixer", "layers.0.mlp", "layers.1.mixer", "layers.1.mlp"]
    assert paths_of(encoder) == names
    with torch.no_grad():
        plain, whole = objective.model(look.packed), Paths(encoder)
        with objective.model.tapped(whole):
            assert torch.allclose(objective.model(look.packed), plain, atol=1e-6)
        assert torch.allclose(sum(whole[name] for name in names), whole.delivered, atol=1e-5)
        kept = dict(whole)
        for name in names:
            without = Paths(encoder, [name])
            with objective.model.tapped(without):
                assert torch.allclose(objective.model(look.packed), plain - kept[name], atol=1e-5)
            assert all(torch.allclose(without[other], kept[other], atol=1e-6) for other in names)
        alone = Paths(encoder, names[1:])  # all but z_0: a linear probe of the tokens
        with objective.model.tapped(alone):
            assert torch.allclose(objective.model(look.packed), look.x, atol=1e-5)


def test_shares_sum_to_one_and_a_branch_that_adds_nothing_costs_nothing(words):
    task, records, objective = words
    layer = objective.model.encoder.layers[1].mlp
    kept = [p.detach().clone() for p in layer.parameters()]
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    found = PathEffects().run(task, records, objective)
    with torch.no_grad():
        for p, value in zip(layer.parameters(), kept, strict=True):
            p.copy_(value)
    lines = {line["path"]: line for line in found["paths"]}
    assert sum(line["share"] for line in lines.values()) == pytest.approx(1)
    silent = lines["layers.1.mlp"]
    assert silent["share"] == 0 and silent["drop"] == 0 and silent["nll rise"] == pytest.approx(0, abs=1e-6)
    assert any(abs(line["nll rise"]) > 1e-3 for line in lines.values())
    look = next(looks(task, records, objective))
    assert torch.allclose(shares(look, Paths(objective.model.encoder)).sum(1), torch.ones(12, dtype=torch.double))
    text = paths_section(found)
    assert text.count("<rect") == 3 * 5 and "embedded" in PathEffects().table(found)


def test_what_is_no_sum_is_refused():
    kinds = modalities()
    with pytest.raises(UserError, match="pre-norm"):
        paths_of(model_of(kinds, post_norm=True).encoder)


def test_kept_tokens_are_those_that_go_on():
    generator = torch.Generator().manual_seed(0)
    rows = [{"image": torch.rand(8, 8, generator=generator).numpy(), "label": WORDS[i % 2]} for i in range(6)]
    kinds = modalities() | {"image": Image(size=8, patch=2, channels=1)}
    kinds["image"].name = "image"
    stage = {"kind": "keep", "share": 0.25, "interpreter_heads": 2}
    model = model_of(kinds, steps=[{}, {"stage": stage}])
    task, records, objective = bound(rows, WORDS[:2], kinds, model, {"image": "image"})
    found = KeptTokens().run(task, records, objective)
    (step,) = found["steps"]
    assert step["kept"] == 0.25
    scores = {}

    def look_on(name, x, at):
        if name.endswith(".keep"):
            scores["of"] = x
        return x

    look = next(looks(task, records, objective))
    with torch.no_grad(), model.tapped(look_on):
        look.queries()
    for b, one in enumerate(found["samples"]):
        (heat,) = one["heats"]
        own = scores["of"][look.open & (look.packed.owner == b)]
        kept = [i for i, value in enumerate(heat["values"]["steps passed"]) if value == 1]
        assert kept == own.topk(4).indices.sort().values.tolist() and heat["shape"] == [4, 4]
    assert keep_section(found).count("<img") == 6 and "0.250" in KeptTokens().table(found)
    with pytest.raises(UserError, match="no step of this model leaves tokens out"):
        KeptTokens().run(*bound(ROWS[:3], WORDS, modalities(), model_of(modalities()), {"text": "text"}))
