"""Conditional mixture of experts: five routers, and evaluation at a dense layer's cost."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Role, Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.decode import Anew, Writer, start, vocabulary_features
from generalist.nn.encoder import Encoder
from generalist.nn.experts.experts import ExpertLinear, Experts
from generalist.nn.experts.mixers import ExpertAttention, ExpertMLP
from generalist.nn.experts.routing import ROUTERS, Choice, RouterSpec, attributes
from generalist.nn.experts.usage import ExpertUsage
from generalist.nn.mixers.table import mixer_names
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.train.optimizer import parameter_groups
from tests.uniperceiver_moe import Given

MIXER, MLP = "encoder.layers.0.mixer", "encoder.layers.0.mlp"
EXPERTS = ("qkv", "out", "up", "down")


def model(router="attribute", layers=3, **settings):
    values = {"moe_placement": "odd", "moe_router": router, "moe_experts": 5, "tasks": ["first", "second"]} | settings
    config = GeneralistConfig(
        hidden_size=24, num_hidden_layers=layers, num_attention_heads=3, intermediate_size=40,
        modalities={"image": {}, "series": {}, "table": {}}, **values,
    )  # fmt: skip
    made = GeneralistModel(config)
    made.kinds = {"image": "vision", "series": "text", "table": "other"}
    made.tokenizers = nn.ModuleDict({name: Given() for name in made.kinds})
    for mixer in made.modules():
        if isinstance(mixer, ExpertLinear):
            nn.init.normal_(mixer.bias)
        if isinstance(mixer, Experts):  # far from even, so that a wrong expert shows
            nn.init.normal_(mixer.router.gate.weight)
    return made.eval()


def sequence(*runs, causal=False):
    spans = [Span("table", {"x": torch.randn(1, 24)}, 1).ask([0])]
    for modality, n in runs:
        spans.append(Span(modality, {"x": torch.randn(n, 24)}, n))
    if causal:
        spans[-1] = replace(spans[-1], causal=torch.ones(spans[-1].length, dtype=torch.bool))
    return spans


def sequences():
    return [sequence(("image", 3), ("series", 2), causal=True), sequence(("series", 7)), sequence(("image", 5))]


@pytest.mark.parametrize("router", ROUTERS)
def test_a_packed_batch_gives_what_its_sequences_give_one_by_one(router):
    made, given = model(router), sequences()
    with torch.no_grad():
        together = made.features(pack(given))
        alone = torch.cat([made.features(pack([s])) for s in given])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("top", [1, 2])
def test_a_layer_is_the_weighted_sum_of_its_chosen_experts(router, top):
    made = model(router, layers=1, moe_top=top, moe_parts="mlp")
    mlp = made.encoder.layers[0].mlp
    packed = pack(sequences())
    here, x = made.at(packed), torch.randn(packed.tokens, 24)
    with torch.no_grad():
        choice = mlp.router(x, here)
        at = here.routes.index if mlp.router.per_row else torch.arange(len(x))
        assert choice.experts.shape[1] == top and torch.allclose(choice.weights.sum(1), torch.ones(len(choice.weights)))
        # merging experts before the activation and mixing them behind it differ: rows merge, tokens mix each linear
        expected = []
        for token, row in zip(x, at.tolist(), strict=True):
            pairs = list(zip(choice.experts[row].tolist(), choice.weights[row], strict=True))
            up = sum(w * (mlp.up.weight[e] @ token + mlp.up.bias[e]) for e, w in pairs)
            expected.append(sum(w * (mlp.down.weight[e] @ mlp.activation(up) + mlp.down.bias[e]) for e, w in pairs))
        assert torch.allclose(mlp(x, here), torch.stack(expected), atol=1e-5)


def test_one_expert_is_the_dense_model():
    made = model("attribute", moe_experts=1, moe_top=1, moe_placement="all")
    dense = GeneralistModel(GeneralistConfig(**{**made.config.to_dict(), "moe_placement": "none"})).eval()
    dense.tokenizers = made.tokenizers
    state = {
        k: v[0] if v.ndim and k.split(".")[-2] in ("qkv", "out", "up", "down") else v
        for k, v in made.state_dict().items()
    }
    dense.load_state_dict({k: v for k, v in state.items() if "router" not in k})
    packed = pack(sequences())
    with torch.no_grad():
        assert torch.allclose(made.features(packed), dense.features(packed), atol=1e-5)


def test_experts_are_merged_once_a_row_and_again_only_when_a_weight_changes(monkeypatch):
    made, merges = model("attribute", layers=1), []
    whole = ExpertLinear.merge
    monkeypatch.setattr(
        ExpertLinear, "merge", lambda self, choice: merges.append(len(choice.experts)) or whole(self, choice)
    )
    pictures = pack([sequence(("image", 3))])
    with torch.no_grad():
        made(pictures), made(pictures)
        assert merges == [1, 1, 1, 1]  # four linears, one row each
        first = made(pack(sequences()))
        assert sum(merges) == 4 * 4  # the caption's two rows and the text's one are new, the picture's is known
        made.encoder.layers[0].mlp.up.weight.mul_(1.5)
        second = made(pack(sequences()))
    assert not torch.allclose(first, second)
    assert sum(merges) == 4 * 4 + 2 * 4  # only the mixer that changed


def test_evaluation_does_the_matrix_products_of_a_dense_model():
    from torch.utils.flop_counter import FlopCounterMode

    made = model("attribute", moe_placement="all")
    dense = model(moe_placement="none")
    packed = pack([sequence(("image", 6)), sequence(("image", 6))])
    flops = []
    for each in (made, dense):
        with torch.no_grad():
            each(packed)
            with FlopCounterMode(display=False) as counter:
                each(packed)
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0


def test_a_causal_token_is_not_routed_by_its_future():
    for router in ROUTERS:
        made = model(router)
        one = sequence(("image", 3), ("series", 5), causal=True)
        other = [*one[:2], replace(one[2], data={"x": one[2].data["x"] * (1 - 2 * (torch.arange(5) // 4))[:, None]})]
        with torch.no_grad():
            a, b = made(pack([one])), made(pack([other]))
        assert torch.allclose(a[:-1], b[:-1], atol=1e-5) and not torch.allclose(a[-1], b[-1]), router


def test_noise_moves_the_choice_in_training_only_and_has_the_stated_size():
    router = ROUTERS["token"](RouterSpec(width=7, experts=5, top=5, noise=2.0))
    nn.init.zeros_(router.gate.weight)
    condition = torch.zeros(20000, 7)
    choice = router.train().choose(condition)
    z = torch.zeros(20000, 5).scatter(1, choice.experts, choice.weights.log())
    z = z - z.mean(1, keepdim=True)
    assert abs(float(z.detach().std()) - 2.0 / 5 * (4 / 5) ** 0.5) < 0.01  # centring takes 1/5 of the variance
    assert torch.equal(router.eval().choose(condition).weights, torch.full((20000, 5), 0.2))


def test_attribute_bits_follow_the_table_of_the_paper():
    kinds = {"image": "vision", "series": "text", "table": "other"}
    cases = [
        (sequence(("image", 3)), Role(), ["10011000"] * 4),
        (sequence(("series", 2)), Role(), ["01010100"] * 3),
        (sequence(("image", 2), ("series", 2), causal=True), Role(), ["11011000"] * 3 + ["11010101"] * 2),
        (sequence(("series", 3)), Role(target=True, other=("vision",)), ["10010110"] * 4),
        (sequence(("series", 2)), Role(target=True, other=("vision", "text")), ["11010110"] * 3),
        (sequence(("series", 1))[1:], Role(own=("vision", "text")), ["11010100"]),
    ]
    for spans, role, expected in cases:
        packed = pack([spans])
        packed.role = role
        bits = attributes(packed, kinds).long()
        assert ["".join(map(str, row)) for row in bits.tolist()] == expected


def test_an_unknown_task_is_routed_by_the_mean_of_all():
    made = model("task", layers=1)
    router = made.encoder.layers[0].mlp.router
    packed = pack(sequences())
    conditions = []
    for name in ("first", "second", "never heard of"):
        packed.role = Role(task=name)
        conditions.append(router.condition(torch.empty(0), made.at(packed)))
    assert torch.allclose(conditions[2], (conditions[0] + conditions[1]) / 2)


def test_usage_counts_every_token_k_times_and_its_weight_once():
    made, packed = model("token", layers=1), pack(sequences())
    with ExpertUsage(made) as usage:
        made(packed)
    for name in (MIXER, MLP):
        assert int(usage.tokens[name].sum()) == 2 * packed.tokens
        assert torch.allclose(usage.weight[name].sum(), torch.tensor(float(packed.tokens)))
        assert 1 <= usage.effective(name) <= 5
    assert MIXER in usage.table()
    made(packed)
    assert int(usage.tokens[MIXER].sum()) == 2 * packed.tokens  # no longer recorded


@pytest.mark.parametrize(
    ("placement", "held"), [("none", []), ("odd", [0, 2, 4, 6]), ("four", [0, 4]), ("all", list(range(7)))]
)
def test_experts_stand_in_the_layers_that_the_placement_names(placement, held):
    names = mixer_names(GeneralistConfig(num_hidden_layers=7, moe_placement=placement))
    assert [i for i, (mixer, mlp) in enumerate(names) if (mixer, mlp) == ("expert_attention", "expert_mlp")] == held
    half = mixer_names(GeneralistConfig(num_hidden_layers=7, moe_placement=placement, moe_parts="mlp"))
    assert {mixer for mixer, _ in half} == {"attention"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"moe_placement": "even"}, "odd"),
        ({"moe_router": "attributes"}, "'attribute'"),
        ({"moe_top": 3, "moe_experts": 2}, "moe_top 3 of moe_experts 2"),
        ({"moe_parts": "ffn"}, "mlp"),
        ({"moe_noise": -1.0}, "moe_noise"),
    ],
)
def test_a_mixture_that_cannot_work_is_refused_when_the_configuration_is_read(settings, message):
    with pytest.raises(UserError, match=message):
        GeneralistConfig(**settings)


def test_expert_matrices_decay_and_their_biases_do_not():
    made = model(layers=1)
    yes, no = parameter_groups(made, 0.1)
    mlp = made.encoder.layers[0].mlp
    assert any(p is mlp.up.weight for p in yes["params"]) and any(p is mlp.up.bias for p in no["params"])


def test_a_saved_mixture_loads_with_the_same_numbers(tmp_path):
    made, packed = model("attribute"), pack(sequences())
    made.save_pretrained(tmp_path)
    config = GeneralistConfig.from_pretrained(tmp_path)
    assert config.moe_placement == "odd" and config.tasks == ["first", "second"]
    loaded = GeneralistModel.from_pretrained(tmp_path).eval()
    loaded.kinds, loaded.tokenizers = made.kinds, made.tokenizers
    with torch.no_grad():
        assert torch.equal(loaded(packed), made(packed))


def test_fresh_experts_differ_and_each_square_matrix_is_xavier():
    linear = ExpertLinear(3, 50, 150, parts=3)
    bound = (6 / 100) ** 0.5  # of a [50 50] matrix, not of the [150 50] stack
    assert not torch.equal(linear.weight[0], linear.weight[1])
    assert 0.98 * bound < float(linear.weight.detach().abs().max()) <= bound


def test_prompts_are_projected_by_the_experts_of_their_sequence():
    made = model("attribute", layers=1, moe_parts="attention")
    mixer: ExpertAttention = made.encoder.layers[0].mixer
    packed, prompts = pack(sequences()), torch.randn(2, 24)
    at, x = replace(made.at(packed), prompts=prompts), torch.randn(packed.tokens, 24)

    with torch.no_grad():
        together = mixer(x, at)
        for i in range(3):
            one = pack([sequences()[i]]).layout  # the shapes, not the values, of sequence i
            own = replace(at, layout=one, routes=replace(at.routes, index=at.routes.index[packed.owner == i]), made={})
            alone = mixer(x[packed.owner == i], own)
            assert torch.allclose(together[packed.owner == i], alone, atol=1e-5)


def test_every_router_learns_through_the_balanced_choice():
    for router in ROUTERS:
        made = model(router).train()
        made(pack(sequences())).square().sum().backward()
        grads = {n: p.grad for n, p in made.encoder.named_parameters() if "router" in n or "mixer.qkv" in n}
        assert all(g is not None and g.isfinite().all() for g in grads.values()), router
        assert float(grads["layers.0.mixer.router.gate.weight"].abs().sum()) > 0, router


def test_the_mixers_take_their_place_in_an_ordinary_encoder():
    encoder = Encoder(model().config)
    assert isinstance(encoder.layers[0].mixer, ExpertAttention) and isinstance(encoder.layers[2].mlp, ExpertMLP)
    assert not isinstance(encoder.layers[1].mlp, ExpertMLP)
    merged = encoder.layers[0].mlp.up.merge(
        Choice(torch.tensor([[0, 3], [1, 1]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    )
    weight = encoder.layers[0].mlp.up.weight
    assert torch.allclose(merged[0], torch.stack([0.25 * weight[0] + 0.75 * weight[3], weight[1]]))


def real_model(router, **more):
    """Text and pictures through experts in every layer."""
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(["once upon a time", "a cat sat"])
    settings = modality_settings({"summary": Summary(), "text": text, "image": Image(size=8, patch=4, channels=1)})
    values = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    config = GeneralistConfig(
        modalities=settings, moe_placement="all", moe_router=router, moe_experts=5, **values, **more
    )
    made = GeneralistModel(config).eval()
    for mixer in made.modules():
        if isinstance(mixer, Experts):
            nn.init.normal_(mixer.router.gate.weight)
    return made, text


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("prompts", [0, 2])
def test_a_caption_written_word_by_word_is_routed_as_one_read_at_once(router, prompts):
    made, text = real_model(router, prompts=prompts)
    image = Image(size=8, patch=4, channels=1)
    inputs = [[Summary().span(None), image.span(torch.rand(1, 8, n))] for n in (8, 4)]
    members = vocabulary_features(made, text, Summary())
    writer, anew = start(made, inputs, text, "default"), Anew(made, inputs, text, "default")
    assert isinstance(writer, Writer) == (router != "context")  # which looks at a whole sequence
    with torch.no_grad():
        for t, words in enumerate(torch.tensor([[5, 33], [65, 12], [101, 90]])):
            assert torch.allclose(writer.ask(t, members), anew.ask(t, members), atol=1e-5)
            writer.write(words, t)
            anew.write(words, t)


@pytest.mark.parametrize("router", ROUTERS)
def test_padded_tensors_are_routed_as_packed_tokens_are(router):
    made, text = real_model(router)
    ids = [text.ids("once upon a time")[:7], text.ids("cat")]
    longest = max(map(len, ids))
    padded = torch.stack([nn.functional.pad(i, (0, longest - len(i))) for i in ids])
    real = torch.stack([torch.arange(longest) < len(i) for i in ids])
    question = [Summary().span(None).ask([0])]
    with torch.no_grad():
        for candidate in (False, True):
            given = {"input_ids": padded, "attention_mask": real.long()}
            found = made.encode_padded("text", given, candidate).pooler_output
            expected = made.features(pack([[*question, text._span(i)] for i in ids]), candidate)
            assert torch.allclose(found, expected, atol=1e-5)
