"""What every mixer of the tables must do, whatever it computes: a new line of a table is tried here by itself."""

import json
from functools import cache

import pytest
import torch
from tiny import tiny
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.train.counted import count
from generalist.train.prepare import prepare

SIZES = {"width": 24, "layers": 2, "heads": 3, "hidden": 40}
CHANNELS = list(CHANNEL_MIXERS)


@cache
def modalities():
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(["once upon a time", "a cat sat on a mat"])
    return {"summary": Summary(), "text": text, "image": Image(size=16, patch=4, channels=1), "points": Points()}


def channel(name):
    return name in CHANNEL_MIXERS


# steps that change the tokens, between two blocks
STEPS = {
    "merge": {"kind": "merge"},
    "keep": {"kind": "keep", "share": 0.5},
    "cluster": {"kind": "cluster", "tokens": 3},
}


@cache
def built(name):
    """A model with the mixer in its first layer and attention, so that all can reach the summary, in its second."""
    torch.manual_seed(0)
    own = {name: m.settings() for name, m in modalities().items()}
    mixed = {"channel_mixers": [name, "mlp"]} if channel(name) else {"mixers": [name, "attention"]}
    if name in STEPS:
        mixed = {"steps": [{"mixer": "attention"}, {"stage": STEPS[name], "mixer": "attention"}]}
    made = GeneralistModel(GeneralistConfig(**SIZES, **mixed, modalities=own, scales=["default"])).eval()
    for parameter in made.encoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def given():
    """Pictures of four sizes, one of them in two, a text and a point set, each asked at a summary."""
    own, draw = modalities(), torch.Generator().manual_seed(1)
    pictures = [
        own["image"].span(torch.rand(1, 4 * h, 4 * w, generator=draw)) for h, w in ((4, 4), (2, 4), (4, 2), (2, 2))
    ]
    others = [own["text"].span("a cat sat"), own["points"].span(torch.rand(40, 3, generator=draw))]
    inputs = [
        *([picture] for picture in pictures),
        *([other] for other in others),
        [others[0], pictures[1], pictures[3]],
    ]
    return [[own["summary"].span(None).ask([0]), *spans] for spans in inputs]


PICTURES = ((4, 4), (2, 4), (4, 2))


def clients(name):
    """The model, its processor, and pictures of three sizes."""
    own, draw = modalities(), torch.Generator().manual_seed(2)
    processor = GeneralistProcessor(own["text"].hf_tokenizer(), {n: m.settings() for n, m in own.items()})
    return built(name), processor, [torch.rand(1, 4 * h, 4 * w, generator=draw) for h, w in PICTURES]


@pytest.mark.parametrize("name", [*STEPS])
@torch.no_grad()
def test_padded_clients_are_packed_ones(name):
    made, processor, pictures = clients(name)
    for raw in ({"image": pictures}, {"text": ["once upon a time", "a cat"]}):
        found = made(**processor(**raw, return_tensors="pt")).pooler_output
        torch.testing.assert_close(normalize(found, dim=-1), made.encode(processor(**raw)), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["pool", "merge", "keep"])
@torch.no_grad()
def test_padded_rows_are_each_samples_own(name):
    """Hidden states layer by layer: of tokens that nothing merges where they stood, of others one behind the other."""
    made, processor, pictures = clients(name)
    together = made(**processor(image=pictures, return_tensors="pt"), output_hidden_states=True).hidden_states
    assert len(together) == len(made.encoder.layers) + 1
    for i, (rows, columns) in enumerate(PICTURES):
        alone = made(**processor(image=pictures[i : i + 1], return_tensors="pt"), output_hidden_states=True)
        for all_rows, own in zip(together, alone.hidden_states, strict=True):
            mine = all_rows[i, : own.shape[1]]
            if all_rows.shape[1] == 17:  # 4 x 4 cells behind the summary, of which this picture has rows x columns
                cells = torch.arange(1, 17).view(4, 4)[:rows, :columns].flatten()
                mine = all_rows[i, torch.cat([torch.zeros(1, dtype=torch.long), cells])]
            torch.testing.assert_close(mine, own[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_padded_tensors_of_mixed_maps_have_no_attention_weights_and_a_mask_is_a_rectangle():
    made, processor, pictures = clients("merge")
    tensors = processor(image=pictures, return_tensors="pt")
    with pytest.raises(UserError, match="no attention weights of padded tensors"):
        made(**tensors, output_attentions=True)
    tensors["pixel_mask"][0, :4] = 0
    with pytest.raises(UserError, match="no rectangle"):
        made(**tensors)


@pytest.mark.parametrize("name", [name for name in TOKEN_MIXERS if name not in ("attention", "expert_attention")])
@torch.no_grad()
def test_what_has_no_map_goes_through_mixers_of_maps_unchanged(name):
    made = built(name)
    mixer = made.encoder.layers[0].mixer
    if mixer.needs.reach != "grid":
        pytest.skip("mixes tokens without a map as well")
    packed = pack([given()[5]])
    at = made.at(packed)
    x = torch.randn(packed.tokens, SIZES["width"])
    assert not mixer(x, at).any()


def test_a_plan_counts_every_mixer():
    names = [name for name in TOKEN_MIXERS if not name.startswith("expert")]
    recipe = tiny(
        model__layers=len(names),
        model__mixers=json.dumps(names),
        modalities__image__size=16,
        model__channel_mixers=json.dumps((CHANNELS[:4] * len(names))[: len(names)]),
    )
    parameters, _, _ = count(recipe, 1)
    prepared = prepare(recipe)
    assert parameters == sum(p.numel() for p in prepared.model(recipe).parameters())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mixers": "retentoin"}, "mixers 'retentoin'; did you mean 'retention'"),
        ({"mixers": ["hyena", "attention", "attention"]}, "model.mixers lists 3 of model.layers=2"),
        ({"mixers": [{"kind": "decay_axes"}, "attention"], "width": 21, "heads": 3}, "heads of an even width"),
        ({"mixers": [{"kind": "hyena", "filter": "grit"}, "attention"]}, "hyena filter 'grit'; did you mean 'grid'"),
        ({"mixers": [{"kind": "hyena", "filter": "direct"}, "attention"]}, "give size"),
        ({"mixers": [{"kind": "retention", "chunk": 0}, "attention"]}, "retention chunk 0"),
        ({"mixers": {"kind": "retention", "direction": "causal"}}, "an asked token learns nothing"),
        ({"mixers": {"kind": "retention", "normalise": "softmax"}, "writing_scale": "default"}, "cannot be causal"),
        ({"mixers": ["decay_axes", "attention"], "writing_scale": "default"}, "cannot be causal"),
        ({"mixers": "hyena"}, "an asked token learns nothing"),
        ({"mixers": "retention", "prompts": 2}, "model.prompts is of attention, and no layer has any"),
        ({"mixers": "retention", "position": "rotary"}, "model.position is of attention, and no layer has any"),
        ({"local": 4}, "a window with a middle is odd"),
        ({"local": 3, "moe": {"placement": "all"}}, "experts have no local"),
        ({"mixers": ["retention", "attention"], "inner_norm": True}, "'retention' has no such norm"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_when_it_is_read(keys, words):
    own = {name: m.settings() for name, m in modalities().items()}
    with pytest.raises(UserError, match=words) as said:
        GeneralistConfig(**SIZES | {"modalities": own, "scales": ["default"]} | keys)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["decay_axes", "hyena"])
def test_a_mixer_of_grids_in_a_recipe_of_tables_alone_is_refused(name):
    recipe = tiny(model__layers=2, model__mixers=json.dumps([name, "attention"]))
    recipe.tasks = [task for task in recipe.tasks if "table" in task.inputs]
    del recipe.modalities["image"]
    with pytest.raises(UserError, match=f"the mixer '{name}' works on grids of 2 axes, and no modality"):
        prepare(recipe)
