"""The last layer makes the tokens asked alone, and gives them what it gives them among all others."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from generalist.data.batch.pack import pack
from generalist.data.batch.types import Role, Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.experts.experts import ExpertLinear, Experts
from generalist.nn.experts.routing import ROUTERS
from generalist.train.engines.base import recompute_activations
from tests.uniperceiver_moe import Given

WIDTH = 24


def model(**settings):
    values = {"layers": 2, "heads": 3, "tasks": ["first", "second"], "moe_experts": 3} | settings
    config = GeneralistConfig(
        width=WIDTH, hidden=40,
        modalities={"image": {}, "series": {}, "table": {}}, **values,
    )  # fmt: skip
    torch.manual_seed(0)
    made = GeneralistModel(config)
    made.kinds = {"image": "vision", "series": "text", "table": "other"}
    made.tokenizers = nn.ModuleDict({name: Given() for name in made.kinds})
    for part in made.modules():
        if isinstance(part, ExpertLinear):
            nn.init.normal_(part.bias)
        if isinstance(part, Experts):  # far from even, so that a wrong expert shows
            nn.init.normal_(part.router.gate.weight)
    return made.eval()


def span(n, *asked, causal=False, hidden=(), grid=None, modality="image"):
    """n tokens; `asked` of them ask."""
    made = Span(modality, {"x": torch.randn(n, WIDTH)}, n, grid=grid)
    if causal:
        made = replace(made, causal=torch.ones(n, dtype=torch.bool))
    if hidden:
        made = replace(made, hidden=torch.isin(torch.arange(n), torch.tensor(hidden)))
    return made.ask(list(asked)) if asked else made


def questions():
    """Summaries that ask once; texts that ask at one, several and no tokens, causal and hidden ones; pictures."""
    torch.manual_seed(1)
    return [
        [span(1, 0, modality="table"), span(4, grid=(2, 2))],
        [span(1, 0, modality="table"), span(4, grid=(2, 2))],
        [span(1, modality="table"), span(6, grid=(2, 3)), span(3, modality="series")],
        [span(5, 1, 4, causal=True, modality="table")],
        [span(5, 0, 2, 3, hidden=(2, 3), modality="table")],
        [span(1, modality="table"), span(2, modality="series"), span(7, 6, 2, causal=True, modality="table")],
        [span(1, 0, modality="table"), span(9, grid=(3, 3))],
    ]


def answers():
    return [[span(1, 0, modality="table"), span(n, modality="series")] for n in (1, 1, 2, 1)]


def packed(target=False):
    torch.manual_seed(2)
    return pack(answers() if target else questions(), Role(target, other=("vision",), task="second"))


def whole(made, run):
    """What `run` gives where all tokens are made: for whoever looks on they are."""
    with made.tapped(lambda name, x, at: x):
        return run()


def both(made, run):
    """What is made of the asked tokens alone, and of them among all: values, then gradients of every parameter."""
    found = []
    for how in (lambda made, run: run(), whole):
        made.zero_grad()
        torch.manual_seed(3)  # the same paths are dropped
        out = how(made, run)
        out = torch.cat(out) if isinstance(out, list) else out
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        grads = {name: p.grad for name, p in made.named_parameters()}
        found.append((out.detach(), grads))
    return found


def same(made, run):
    (own, own_grads), (all_, all_grads) = both(made, run)
    torch.testing.assert_close(own, all_, atol=2e-5, rtol=1e-4)
    for name, grad in all_grads.items():
        if grad is not None:
            torch.testing.assert_close(own_grads[name], grad, atol=2e-4, rtol=1e-3, msg=name)


MODELS = {
    "plain": {},
    "eager": {"kernel": "eager"},
    "post": {"norm": "post"},
    "branch": {"norm": "branch", "layer_scale": 0.3},
    "sub": {"inner_norm": True, "final_norm": True},
    "prompts": {"prompts": 2},
    "apart": {"prompts": 2, "separate_prompts": True},
    "rotary": {"position": "rotary", "heads": 6},
    "relative": {"position": {"kind": "relative", "hidden": 8}},
    "merge": {"steps": [{}, {"stage": "merge", "width": WIDTH}]},
    "gated": {"channel_mixers": "swiglu"},
}
EXPERTS = {f"{router} {parts}": (router, parts) for router in ROUTERS for parts in ("both", "prompted")}


@pytest.mark.parametrize("name", MODELS)
def test_asked_alone_is_asked_among_all(name):
    settings = dict(MODELS[name])
    kernel = settings.pop("kernel", "sdpa")
    made = model(**settings)
    made.set_attn_implementation(kernel)
    same(made, lambda: made.features(packed()))
    same(made, lambda: made.encode_together([packed(), packed(target=True)]))


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_are_those_among_all(name):
    router, parts = EXPERTS[name]
    made = model(moe_placement="all", moe_router=router, prompts=2 if parts == "prompted" else 0)
    same(made, lambda: made.features(packed()))
    same(made.train(), lambda: made.encode_together([packed(), packed(target=True)]))  # with noise in the choice


def test_paths_dropped_are_those_dropped_among_all():
    made = model(drop_path=0.5).train()
    given = packed()
    assert not torch.allclose(made.features(given), made.features(given))
    same(made, lambda: made.encode_together([packed(), packed(target=True)]))


def test_recomputed_in_the_backward_pass():
    plain, again = model(drop_path=0.3).train(), model(drop_path=0.3).train()

    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = again

    assert recompute_activations(Held()) == 2
    (own, grads), _ = both(plain, lambda: plain.features(packed()))
    (found, more), _ = both(again, lambda: again.features(packed()))
    torch.testing.assert_close(found, own)
    torch.testing.assert_close(more["encoder.layers.1.mixer.qkv.weight"], grads["encoder.layers.1.mixer.qkv.weight"])


@pytest.mark.parametrize(("settings", "rows"), [({}, 10), ({"readout": "mean"}, 44), ({"moe_router": "context"}, 44)])
def test_how_many_tokens_the_last_layer_makes(settings, rows):
    """Ten questions at 44 tokens; all of them where the readout or the experts' choice looks at all."""
    moe = {"moe_placement": "all"} if "moe_router" in settings else {}
    made, seen = model(**settings, **moe), []
    asked = [s for s in questions() if sum(len(x.asked) for x in s if x.asked is not None) == 1]
    given = pack(asked) if "readout" in settings else packed()
    rows = given.tokens if rows == 44 else rows
    made.encoder.layers[-1].mlp.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    made.encoder.layers[0].mlp.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    made.features(given)
    assert seen == [given.tokens, rows]


def test_all_tokens_come_out_of_the_model_itself():
    made, given = model(), packed()
    assert len(made(given)) == given.tokens
    torch.testing.assert_close(made.features(given), made.head(made(given)[given.asked]), atol=1e-5, rtol=1e-4)
