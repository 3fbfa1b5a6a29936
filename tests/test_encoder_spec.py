"""One description of the encoder: every key of it from the command line to the model and to a reloaded config.json;
names and lists that cannot work are refused when they are read."""

import json
from dataclasses import asdict, fields
from typing import ClassVar

import pytest
import torch
from tiny import tiny
from torch import nn

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS, layers_of
from generalist.nn.spec import Needs
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.json import from_json, to_json
from generalist.recipe.keys import _also, override
from generalist.recipe.layers import MoeSpec
from generalist.recipe.specs import ModelSpec
from generalist.train.counted import count
from generalist.train.prepare import prepare

MOE = ("moe.placement=all", "moe.experts=3")
POOLER = ("pooling=attention",)
LAYER = {"mixer": "attention", "channel": "swiglu", "norm": "post", "heads": 4, "hidden": 12}


def block(model, number=0):
    return model.encoder.layers[number]


# key: (what the command line says, keys beside it, what the configuration then holds, what the model shows of it)
KEYS = {
    "width": ("20", (), 20, lambda m: block(m).norm1.weight.numel(), 20),
    "layers": ("3", (), 3, lambda m: len(m.encoder.layers), 3),
    "heads": ("8", (), 8, lambda m: block(m).mixer.heads, 8),
    "head_dim": ("3", (), 3, lambda m: tuple(block(m).mixer.qkv.weight.shape), (18, 16)),
    "local": ("5", (), 5, lambda m: tuple(block(m).mixer.local.filter.weight.shape), (16, 1, 5, 5)),
    "local_shared": ("true", ("local=3",), True, lambda m: len(block(m).mixer.local.filter.weight), 8),
    "hidden": ("9", (), 9, lambda m: block(m).mlp.up.out_features, 9),
    "activation": ("relu", (), "relu", lambda m: type(block(m).mlp.activation), nn.ReLU),
    "eps": ("0.25", (), 0.25, lambda m: block(m).norm2.eps, 0.25),
    "layer_scale": ("0.5", (), 0.5, lambda m: block(m).gamma1[0].item(), 0.5),
    "drop_path": ("0.125", (), 0.125, lambda m: block(m).drop_path.rate, 0.125),
    "initial_scale": ("5", (), 5.0, lambda m: round(m.log_scales["default"].exp().item(), 4), 5.0),
    "embedding_norm": ("false", (), False, lambda m: type(m.embedding_norm), nn.Identity),
    "final_norm": ("true", (), True, lambda m: type(m.encoder.norm), nn.LayerNorm),
    "mixers": ("expert_attention", (), "expert_attention", lambda m: type(block(m).mixer).__name__, "ExpertAttention"),
    "channel_mixers": (
        '["mlp", "swiglu"]',
        (),
        ["mlp", "swiglu"],
        lambda m: [type(b.mlp).__name__ for b in m.encoder.layers],
        ["MLP", "SwiGLU"],
    ),
    "steps": (
        json.dumps([LAYER, {}]),
        (),
        [LAYER, {}],
        lambda m: [(b.post_norm, b.mixer.heads, b.mlp.down.in_features) for b in m.encoder.layers],
        [(True, 4, 12), (False, 2, 24)],
    ),
    "dropped_paths": (
        '["layers.1.mlp"]',
        (),
        ["layers.1.mlp"],
        lambda m: [tap.without for tap in m.conditioned(At(pack([[Span("x", {}, 1)]]).layout), False).taps],
        [["layers.1.mlp"]],
    ),
    "norm": ("branch", (), "branch", lambda m: (block(m).post_norm, block(m).branch_norm), (False, True)),
    "inner_norm": ("true", (), True, lambda m: type(block(m).mixer.norm), nn.LayerNorm),
    "position": ("rotary", (), "rotary", lambda m: len(block(m).mixer.positions), 1),
    "readout": ("mean", (), "mean", lambda m: type(m.pooling).__name__, "MeanOfOthers"),
    "output_head": ("false", (), False, lambda m: type(m.head), nn.Identity),
    "output_size": ("6", (), 6, lambda m: m.head.projection.out_features, 6),
    "output_bias": ("false", (), False, lambda m: m.head.projection.bias, None),
    "output_norm": ("false", (), False, lambda m: type(m.head.norm), nn.Identity),
    "output_act": ("tanh", (), "tanh", lambda m: type(m.head.activation), nn.Tanh),
    "prompts": ("3", (), 3, lambda m: tuple(m.prompts.vectors.shape), (2, 3, 16)),
    "separate_prompts": ("true", ("prompts=2",), True, lambda m: len(m.prompts.candidate_vectors[0]), 2),
    "candidate_prompts": ("4", ("prompts=2",), 4, lambda m: len(m.prompts.candidate_vectors[0]), 4),
    "moe.placement": ("all", (), "all", lambda m: type(block(m, 1).mlp).__name__, "ExpertMLP"),
    "moe.parts": ("mlp", MOE, "mlp", lambda m: type(block(m).mixer).__name__, "Attention"),
    "moe.experts": ("5", MOE, 5, lambda m: len(block(m).mlp.up.weight), 5),
    "moe.top": ("1", MOE, 1, lambda m: block(m).mlp.router.top, 1),
    "moe.router": ("token", MOE, "token", lambda m: type(block(m).mlp.router).__name__, "TokenRouter"),
    "moe.noise": ("0.75", MOE, 0.75, lambda m: block(m).mlp.router.noise, 0.25),
    "moe.gelu": ("true", MOE, True, lambda m: type(block(m).mlp.router.activation), nn.GELU),
    # other names and earlier keys of the same
    "post_norm": ("true", (), True, lambda m: block(m).post_norm, True),
    "branch_norm": ("true", (), True, lambda m: block(m).branch_norm, True),
    "rotary": (
        '{"reference": 3}',
        (),
        {"reference": 3},
        lambda m: block(m).mixer.positions[0].reference,
        3,
    ),
    "relative": ("7", (), 7, lambda m: block(m).mixer.relative.up.out_features, 7),
    "pooling": ("last", (), "last", lambda m: type(m.pooling).__name__, "LastToken"),
    "pooler": ('{"heads": 4}', POOLER, {"heads": 4}, lambda m: m.pooling.heads, 4),
}
ALSO = {name: value.path for name, value in _also(EncoderSpec).items() if not isinstance(value, property)}
KEYS |= {name: KEYS[path] for name, path in ALSO.items()}


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny())


def test_every_key_is_tried():
    own = {f.name for f in fields(EncoderSpec)} - {"moe"} | {f"moe.{f.name}" for f in fields(MoeSpec)}
    assert set(KEYS) == own | set(_also(EncoderSpec))


def held(config, key):
    for part in key.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_the_command_line_is_seen_in_the_model_and_in_the_reloaded_configuration(prepared, tmp_path, key):
    said, beside, value, shown, expected = KEYS[key]
    recipe = tiny(model__layers=2)
    override(recipe, *(f"model.{other}" for other in beside), f"model.{key}={said}")
    saved = from_json(json.loads(json.dumps(to_json(recipe))))
    assert held(saved.model, key) == value and saved.model == recipe.model
    model = prepared.model(recipe)
    assert held(model.config, key) == value and shown(model) == expected
    model.config.save_pretrained(tmp_path)
    again = GeneralistConfig.from_pretrained(tmp_path)
    assert held(again, key) == value and again.described() == model.config.described()
    assert shown(GeneralistModel(again)) == expected


def test_a_swiglu_is_a_channel_mixer_and_trains_as_one(tmp_path, capsys):
    assert main(["train", "demo", "model.mixers=swiglu", "steps=1", "--out", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "'swiglu' is a channel mixer; set model.channel_mixers=swiglu" in said[0]
    assert not (tmp_path / "a").exists()
    keys = ["model.channel_mixers=swiglu", "steps=1", "baseline=false"]
    assert main(["train", "tests/tiny.py", *keys, "--quiet", "--out", str(tmp_path / "b")]) == 0
    config = json.loads((tmp_path / "b" / "model" / "config.json").read_text())
    assert config["channel_mixers"] == "swiglu" and "initializer_range" not in config


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("mixers=atention", "mixers 'atention'; did you mean 'attention'"),
        ("mixers=mlp", "'mlp' is a channel mixer; set model.channel_mixers=mlp"),
        ("channel_mixers=attention", "'attention' is a token mixer; set model.mixers=attention"),
        ("channel_mixers=swigl", "did you mean 'swiglu'"),
        ('mixers=["attention"]', "model.mixers lists 1 of model.layers=2 layers"),
        ('channel_mixers=["mlp", "mlp", "mlp"]', "model.channel_mixers lists 3 of model.layers=2 layers"),
        ('mixers=["attention", "atention"]', "mixers 'atention'; did you mean 'attention'"),
        ("mixers=[1, 2]", "takes a name or"),
        ('channel_mixers={"kind": "mlp", "ratio": 4}', "mlp has no setting 'ratio'"),
        ('channel_mixers={"name": "mlp"}', "takes a name or"),
        ("steps=[{}]", "set model.layers=1"),
        ('steps=[{}, {"mixr": "attention"}]', "layer 1 holds 'mixr'; did you mean 'mixer'"),
        ('steps=[{}, {"heads": 3}]', "model.heads=3 does not divide model.width=16"),
        ('steps=[{}, {"norm": "last"}]', "norm 'last'"),
        ('steps=[{}, {"hidden": "many"}]', "model.steps: layer 1: hidden='many'"),
        ("activation=gleu", "activation 'gleu'; did you mean 'gelu'"),
        ("hidden_act=gleu", "activation 'gleu'; did you mean 'gelu'"),
        ("output_act=tan", "did you mean 'tanh'"),
        ("norm=pots", "norm 'pots'; did you mean 'post'"),
        ("position=rotery", "position 'rotery'; did you mean 'rotary'"),
        ('position={"kind": "rotary", "temprature": 3}', "did you mean 'temperature'"),
        ('position={"kind": "relative", "hidden": 0}', "at least 1"),
        ('position={"kind": "rotary", "temperature": "hot"}', "a setting has a value of the wrong kind"),
        ('readout={"kind": "attention", "heads": "two"}', "a setting has a value of the wrong kind"),
        ('readout={"kind": "attention", "heads": 3}', "3 pooling heads do not divide 16"),
        ("readout=meen", "readout 'meen'; did you mean 'mean'"),
        ('pooler={"heads": 2}', "the readout 'asked' has no settings"),
        ("moe.router=tokn", "'tokn'; did you mean 'token'"),
        ("eps=0", "model.eps=0.0"),
        ("channel_mixer=mlp", "unknown key 'model.channel_mixer'; did you mean 'model.channel_mixers'"),
        ("initializer_range=1", "unknown key 'model.initializer_range'"),
    ],
)
def test_what_cannot_work_is_refused_before_data_are_read(monkeypatch, key, words):
    monkeypatch.setattr("generalist.tasks.base.task.Task.open", lambda *_: pytest.fail("data were opened"))
    with pytest.raises(UserError) as error:
        prepare(tiny(model__layers=2, **{f"model__{key.partition('=')[0]}": key.partition("=")[2]}))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_misspelt_setting_of_the_experts_in_a_file_is_said():
    with pytest.raises(UserError, match="moe has no 'expert'; did you mean 'experts'"):
        GeneralistConfig(moe={"expert": 3})
    with pytest.raises(UserError, match=r"moe takes .*, not 3"):
        GeneralistConfig(moe=3)


def test_earlier_names_in_a_configuration_say_the_same():
    old = GeneralistConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=7, hidden_act="silu",
        layer_norm_eps=1e-3, initializer_range=0.02, post_norm=True, rotary={"offset": 1.0}, relative=5,
        pooler={"heads": 3}, pooling="attention", moe_experts=5, moe_top=1,
    )  # fmt: skip
    new = GeneralistConfig(
        width=24, layers=2, heads=3, hidden=7, activation="silu", eps=1e-3, norm="post",
        position=[{"kind": "rotary", "offset": 1.0}, {"kind": "relative", "hidden": 5}],
        readout={"kind": "attention", "heads": 3}, moe={"experts": 5, "top": 1},
    )  # fmt: skip
    assert old.described() == new.described() and not {"initializer_range", "hidden_size"} & set(old.to_dict())
    assert (new.hidden_size, new.num_hidden_layers, new.num_attention_heads, new.moe_experts) == (24, 2, 3, 5)
    assert (new.rotary, new.relative, new.post_norm, new.pooling) == ({"offset": 1.0}, 5, True, "attention")


# --- what a mixer needs ---


class Picky(Mixer):
    needs: ClassVar[Needs] = Needs()

    def __init__(self, width: int, heads: int, span: int = 3) -> None:
        super().__init__()
        self.span = span


SUMMARY, PICTURE = {"summary": {}}, {"class": "generalist.tokenizers_mod.vision.video:Picture", "size": 8, "patch": 4}
TEXT = {"text": {"tokenizer": "", "learn": 300}}
IMAGE = {"image": {"size": 8, "patch": 4, "channels": 1}}
# field: (its value, a model it cannot stand in, what is said, a model that it can)
NEEDS = {
    "axes": (2, {"modalities": SUMMARY | TEXT}, "works on grids of 2 axes", {"modalities": SUMMARY | IMAGE}),
    "causal": (False, {"modalities": TEXT, "writing_scale": "default"}, "cannot be causal", {"modalities": TEXT}),
    "order": (True, {"modalities": {"points": {}}}, "those of 'points' are a set", {"modalities": TEXT}),
    "reach": (
        "grid",
        {"modalities": IMAGE},
        "no mixer lets tokens see beyond",
        {"modalities": IMAGE, "readout": "mean"},
    ),
    "fixed": (True, {"modalities": IMAGE}, "the grids of 'image' have any size", {"modalities": {"image": PICTURE}}),
}


def test_every_need_is_looked_at():
    assert set(NEEDS) | {"line"} == {f.name for f in fields(Needs)}


def test_a_line_will_do_where_a_task_asks_about_it(monkeypatch):
    monkeypatch.setitem(TOKEN_MIXERS, "picky", Picky)
    monkeypatch.setattr(Picky, "needs", Needs(axes=2, line=True))
    settings = {"width": 8, "heads": 2, "layers": 2, "mixers": ["attention", "picky"]}
    table = {"table": {}}
    names = {"modalities": TEXT | table, "task_sides": {"sort": {"inputs": ["table"]}}}  # the text is of answers alone
    with pytest.raises(UserError, match="no modality that is asked about has one"):
        GeneralistConfig(**settings, **names)
    GeneralistConfig(**settings, **names | {"task_sides": {"sort": {"inputs": ["text"]}}})
    GeneralistConfig(**settings, modalities={"series": {}})


@pytest.mark.parametrize("field", NEEDS)
@pytest.mark.parametrize("slot", ["one", "all"])
def test_a_mixer_that_needs_what_a_model_has_not_is_refused_when_it_is_read(monkeypatch, field, slot):
    value, bad, words, good = NEEDS[field]
    monkeypatch.setitem(TOKEN_MIXERS, "picky", Picky)
    monkeypatch.setattr(Picky, "needs", Needs(**{field: value}))
    mixers = "picky" if slot == "all" or field == "reach" else ["attention", "picky"]
    settings = {"width": 8, "heads": 2, "layers": 2, "mixers": mixers}
    with pytest.raises(UserError, match=words):
        GeneralistConfig(**settings, **bad)
    assert GeneralistConfig(**settings, **good).mixers == mixers
    monkeypatch.setattr(Picky, "needs", Needs())
    GeneralistConfig(**settings, **bad)


def test_causal_texts_are_causal_too_and_an_attention_between_lets_grids_see_one_another(monkeypatch):
    monkeypatch.setitem(TOKEN_MIXERS, "picky", Picky)
    monkeypatch.setattr(Picky, "needs", Needs(causal=False))
    with pytest.raises(UserError, match="cannot be causal"):
        GeneralistConfig(mixers="picky", modalities={"text": TEXT["text"] | {"causal": True}})
    monkeypatch.setattr(Picky, "needs", Needs(reach="grid"))
    GeneralistConfig(layers=2, mixers=["picky", "attention"], modalities=IMAGE)


def test_two_grids_of_one_size_each_do_not_share_weights_of_a_size(monkeypatch):
    monkeypatch.setitem(CHANNEL_MIXERS, "picky", Picky)
    monkeypatch.setattr(Picky, "needs", Needs(fixed=True))
    two = {"image": PICTURE, "large": PICTURE | {"size": 16}}
    with pytest.raises(UserError, match="'image' and others differ in it"):
        GeneralistConfig(channel_mixers="picky", modalities=two)


def test_a_recipe_s_mixer_is_checked_with_its_modalities_before_data_are_read(monkeypatch):
    monkeypatch.setitem(TOKEN_MIXERS, "picky", Picky)
    monkeypatch.setattr(Picky, "needs", Needs(order=True))
    monkeypatch.setattr("generalist.tasks.base.task.Task.open", lambda *_: pytest.fail("data were opened"))
    with pytest.raises(UserError, match="those of 'table' are a set"):
        prepare(tiny(model__mixers="picky"))


def test_settings_of_a_mixer_reach_it_by_layer(monkeypatch, prepared):
    monkeypatch.setitem(TOKEN_MIXERS, "picky", Picky)
    recipe = tiny(model__layers=2, model__mixers='["attention", {"kind": "picky", "span": 7}]')
    assert prepared.model(recipe).encoder.layers[1].mixer.span == 7
    with pytest.raises(UserError, match="picky has no setting 'spam'; did you mean 'span'"):
        GeneralistConfig(mixers={"kind": "picky", "spam": 7})


# --- who else reads the description ---


def test_a_plan_counts_layers_that_differ():
    keys = {"model__layers": 5, "model__channel_mixers": '["mlp", "swiglu", "mlp", "mlp", "swiglu"]'}
    for more in ({}, {"model__channel_mixers": "mlp", "model__moe__placement": "odd"}):
        recipe = tiny(**{**keys, **more})
        parameters, largest, _ = count(recipe, 1)
        ready = prepare(tiny(**{**keys, **more}))
        model = ready.objective(recipe)
        assert parameters == sum(p.numel() for p in model.parameters())
        assert largest == max(sum(p.numel() for p in b.parameters()) for b in model.model.encoder.layers)


def test_a_run_that_starts_from_another_takes_over_how_it_computes_and_refuses_another_way(tmp_path, prepared):
    prepared.model(tiny(model__norm="post", model__channel_mixers="swiglu")).save_pretrained(tmp_path)
    started = prepared.config(tiny(init=tmp_path))
    assert (started.norm, started.channel_mixers) == ("post", "swiglu")
    assert prepared.config(tiny(init=tmp_path, model__norm="post")).norm == "post"
    with pytest.raises(UserError, match="its model has norm='post', the recipe's 'branch'"):
        prepared.config(tiny(init=tmp_path, model__norm="branch"))


def test_a_description_of_layers_one_by_one_computes_what_the_short_one_does(prepared):
    short = prepared.model(tiny(model__layers=2, model__norm="post", model__moe__placement="odd")).eval()
    steps = json.dumps([asdict(layer) for layer in layers_of(short.config)])
    long = prepared.model(tiny(model__layers=2, model__steps=steps)).eval()
    assert long.config.steps[0]["mixer"] == "expert_attention"
    for (name, a), (other, b) in zip(short.named_parameters(), long.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b)


def test_settings_that_came_later_leave_the_order_of_the_first_ones():
    """Recipes say ModelSpec(width, layers, heads, hidden): a field between them would change what they mean, unseen."""
    spec = ModelSpec(768, 12, 16, 3072, "relu", 1e-6, 0.1, 0.2, 14.0)
    assert (spec.width, spec.layers, spec.heads, spec.hidden, spec.head_dim) == (768, 12, 16, 3072, 0)
    assert (spec.activation, spec.eps, spec.layer_scale, spec.drop_path, spec.initial_scale) == (
        "relu",
        1e-6,
        0.1,
        0.2,
        14,
    )
