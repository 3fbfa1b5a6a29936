"""Rotary and relative positions of two axes, gated mixers, inner norms: packed = one by one, padded = packed."""

import pytest
import torch
from torch import nn

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.decode import Anew, start
from generalist.nn.attention.positions.rotary import Rotary, turn
from generalist.nn.attention.positions.table import POSITIONS
from generalist.nn.encoder import Encoder
from generalist.nn.mixers.channel import SwiGLU
from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class, modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.video import Picture, Video
from generalist.train.start.initial import load_initial
from tests.clients import model_and_processor, picture, sound

ROTARY = {"reference": 5, "offset": 1.0}
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10}
# many switches at once
ALL = {"rotary": ROTARY, "channel_mixers": "swiglu", "inner_norm": True}


def shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.4)
    return module.eval()


def model(**settings) -> GeneralistModel:
    modalities = modality_settings(
        {"summary": Summary(), "text": Text(max_length=12, positions=12), "image": Image(size=20, patch=4, channels=1)}
    )
    return shaken(GeneralistModel(GeneralistConfig(**{**SIZES, **settings}, modalities=modalities)))


def sequences(made: GeneralistModel) -> list[list[Span]]:
    """Pictures of three sizes, alone, in front of a text, and in front of a caption whose words are causal."""
    image, text = made.modalities["image"], made.modalities["text"]
    summary = made.modalities["summary"].span(None).ask([0])
    torch.manual_seed(1)
    shots = [image.span(torch.rand(1, 4 * rows, 4 * columns)) for rows, columns in ((5, 3), (2, 5), (3, 5), (5, 5))]
    causal = text.next_span(text.ids("two cats").tolist())
    causal = Span("text", causal.data, causal.length, causal=torch.ones(causal.length, dtype=torch.bool))
    return [
        [summary, shots[0]],
        [summary, text.span("a dog"), shots[1]],
        [summary, shots[2], causal],
        [summary, text.span("no picture")],
        [summary, shots[3], shots[0]],
    ]


@pytest.mark.parametrize("reference", [0, 7])
@pytest.mark.parametrize("grid", [(3, 5), (7, 2)])
def test_angles_are_those_of_timm_for_any_grid(grid, reference):
    timm = pytest.importorskip("timm.layers")
    rows, columns = grid
    sine, cosine = timm.build_rotary_pos_embed(
        grid, dim=12, in_pixels=False, ref_feat_shape=[reference] * 2 if reference else None, grid_offset=1.0
    )
    packed = pack([[Span("x", {}, rows * columns, grid=grid)]])
    ours = Rotary(12, reference=reference, offset=1.0).angles(At(packed.layout).place).squeeze(2)
    torch.testing.assert_close(ours, torch.stack([cosine, sine])[:, :, ::2], atol=1e-6, rtol=0)
    # a head's channels, brought from timm's order to ours, turn as theirs do
    x = torch.randn(rows * columns, 2, 12)
    theirs = timm.apply_rot_embed_cat(x, torch.cat([sine, cosine], -1).unsqueeze(1))
    order = torch.cat([torch.arange(0, 12, 2), torch.arange(1, 12, 2)])
    torch.testing.assert_close(turn(x[..., order], ours.unsqueeze(2)), theirs[..., order])


def test_a_place_is_row_and_column_in_the_own_grid_and_nothing_for_tokens_without_one():
    def span(name, n, grid):
        return Span(name, {"x": torch.zeros(n, 1)}, n, grid=grid)

    spans = [span("b", 6, (2, 3)), span("a", 2, None), span("b", 4, (2, 1, 2)), span("a", 3, (3,))]
    packed = pack([spans[:1], spans[1:]])
    found = {owner: At(packed.layout).place[packed.owner == owner, :4].tolist() for owner in (0, 1)}
    assert found[0] == [[r, c, 2, 3] for r in range(2) for c in range(3)]
    none = [[0, 0, 0, 0]]
    assert found[1] == none * 2 + [[0, 0, 1, 2], [0, 1, 1, 2]] * 2 + none * 3


@pytest.mark.parametrize(
    "settings",
    [
        ALL,
        {"rotary": {}, "branch_norm": True, "layer_scale": 0.3},
        {**ALL, "prompts": 2},
        {**ALL, "post_norm": True},
        {"relative": 9},
        {"relative": 9, "prompts": 2},
    ],
    ids=["gated", "branch norm", "prompts", "post norm", "relative", "relative and prompts"],
)
def test_pictures_of_different_sizes_texts_and_causal_words_in_one_batch_equal_one_by_one(settings):
    made = model(**settings)
    given = sequences(made)
    weight = torch.randn(len(given), 24)
    together = made.features(pack(given))
    (together * weight).sum().backward()
    grads = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    alone = torch.cat([made.features(pack([s])) for s in given])
    (alone * weight).sum().backward()
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert any("mlp.up" in name for name in grads) and any("qkv" in name for name in grads)
    for name, found in grads.items():
        expected = made.get_parameter(name).grad
        assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max())), name
    # in one pass with candidates, whose places are their own
    with torch.no_grad():
        both = made.encode_together([pack(given[:3]), pack(given[3:])])
    torch.testing.assert_close(torch.cat(both), together.detach(), atol=2e-5, rtol=1e-4)


def test_a_score_depends_on_where_patches_stand_to_one_another_and_the_summary_stands_at_zero():
    torch.manual_seed(0)
    patches = Span("x", {"x": torch.randn(15, 24)}, 15, grid=(3, 5))
    alone = pack([[patches]])
    found = {}
    for offset in (0.0, 3.0):
        encoder = shaken(Encoder(GeneralistConfig(**SIZES, rotary={"offset": offset})))
        place = At(alone.layout).place
        with torch.no_grad():
            found[offset], _ = encoder(patches.data["x"], At(alone.layout, made={"place": place}))
            behind = torch.cat([torch.zeros(1, 6, dtype=torch.long), place])[:15]  # the first is a summary
            found[f"behind {offset}"], _ = encoder(patches.data["x"], At(alone.layout, made={"place": behind}))
    torch.testing.assert_close(found[0.0], found[3.0], atol=1e-4, rtol=1e-4)
    assert (found["behind 0.0"] - found["behind 3.0"]).abs().max() > 1e-2


@pytest.mark.parametrize("settings", [{"rotary": {}}, {"relative": 9}])
@torch.no_grad()
def test_only_tokens_with_a_place_are_moved_by_it(settings):
    turned, plain = model(**settings), model()
    plain.load_state_dict({k: v for k, v in turned.state_dict().items() if "relative" not in k})
    given = sequences(turned)
    with_picture = turned.features(pack(given)) - plain.features(pack(given))
    assert with_picture[[0, 1, 2, 4]].abs().amax(1).min() > 1e-3
    assert with_picture[3].abs().max() < 1e-5


MINE = """
import torch
from torch import nn
from generalist.nn.attention.positions.base import Position

class Fade(Position):
    # scores fall by `rate` a token that stands between, times one learnt factor a head
    def __init__(self, width, heads, rate=0.1):
        super().__init__()
        self.rate, self.factor = rate, nn.Parameter(torch.ones(heads))

    def bias(self, at, dtype):
        def of(number):
            group = at.groups[number]
            place = torch.arange(group.length)
            apart = (place[:, None] - place).abs().to(dtype)
            return (-self.rate * self.factor[:, None, None] * apart).expand(group.count, -1, -1, -1)
        return of
"""


@torch.no_grad()
def test_a_position_of_ones_own_is_one_file_and_a_line_in_a_table(tmp_path, monkeypatch):
    (tmp_path / "mine_fade.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(POSITIONS, "fade", "mine_fade:Fade")
    faded = model(position=[{"kind": "fade", "rate": 0.5}, "rotary"], num_hidden_layers=1)
    mixer = faded.encoder.layers[0].mixer
    assert [type(p).__name__ for p in mixer.positions] == ["Fade", "Rotary"]
    factor = faded.state_dict()["encoder.layers.0.mixer.fade.factor"]
    plain = model(rotary={}, num_hidden_layers=1)
    plain.load_state_dict({k: v for k, v in faded.state_dict().items() if "fade" not in k})
    x = torch.randn(4, 24)
    alone = At(pack([[Span("x", {"x": x}, 4)]]).layout)
    q, k, v = mixer.qkv(x).view(4, 3, 3, 8).unbind(1)
    place = torch.arange(4.0)
    scores = torch.einsum("ihd,jhd->hij", q, k) / 8**0.5
    scores = scores - 0.5 * factor[:, None, None] * (place[:, None] - place).abs()
    expected = mixer.out(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).flatten(1))
    torch.testing.assert_close(mixer(x, alone), expected, atol=1e-5, rtol=1e-4)
    assert (plain.encoder.layers[0].mixer(x, alone) - expected).abs().max() > 1e-2
    with pytest.raises(UserError, match="fade has no setting 'rat'; did you mean 'rate'"):
        model(position={"kind": "fade", "rat": 1})


@pytest.mark.parametrize("prompts", [0, 2])
@torch.no_grad()
def test_a_relative_bias_is_that_of_the_formula_and_of_every_kernel(prompts):
    made = model(relative=9, num_hidden_layers=1, prompts=prompts)
    image, summary = made.modalities["image"], made.modalities["summary"].span(None).ask([0])
    packed = pack([[summary, image.span(torch.rand(1, 12, 20))]])
    layer = made.encoder.layers[0]
    mixer, x = layer.mixer, made.embed(packed)
    row, column = At(packed.layout).place[1:, :2].unbind(1)
    apart = torch.stack([row[:, None] - row, column[:, None] - column], -1).float()
    bias = mixer.relative.down(mixer.relative.up(apart.sign() * (1 + apart.abs()).log()).relu())
    seen = x if not prompts else torch.cat([made.prompts(False)[0], x])  # prompts in front, without a place
    q, k, v = mixer.qkv(layer.norm1(seen)).view(len(seen), 3, 3, 8).unbind(1)
    scores = torch.einsum("ihd,jhd->hij", q[prompts:], k) / 8**0.5
    scores[:, 1:, 1 + prompts :] += bias.permute(2, 0, 1)
    mixed = mixer.out(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).flatten(1))
    x = x + mixed
    expected = x + layer.mlp(layer.norm2(x), made.at(packed))
    for name in ("sdpa", "eager", "flex_attention"):
        made.config._attn_implementation = name
        torch.testing.assert_close(made(packed), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [ALL, {"relative": 9}])
@torch.no_grad()
def test_a_caption_written_word_by_word_behind_a_picture_is_the_one_read_at_once(settings):
    made = model(**settings)
    text, image = made.modalities["text"], made.modalities["image"]
    inputs = [[Summary().span(None), image.span(torch.rand(1, 8, 4 * n))] for n in (2, 1)]
    members = torch.randn(200, 24)
    writer, anew = start(made, inputs, text, "default"), Anew(made, inputs, text, "default")
    assert not isinstance(writer, Anew)
    for t, words in enumerate(torch.tensor([[5, 33], [65, 12]])):
        torch.testing.assert_close(writer.ask(t, members), anew.ask(t, members), atol=2e-5, rtol=1e-4)
        writer.write(words, t)
        anew.write(words, t)


@pytest.mark.parametrize("settings", [ALL, {"relative": 9}])
@torch.no_grad()
def test_padded_pictures_texts_and_sounds_give_the_packed_features(tmp_path, settings):
    made, processor = model_and_processor(**settings)
    shaken(made.encoder)
    made.save_pretrained(tmp_path)
    made = GeneralistModel.from_pretrained(tmp_path).eval()
    assert made.config.rotary == settings.get("rotary")
    sounds = {"audio": [(sound(2000), 8000), (sound(3333), 8000)]}
    texts = {"text": ["a red seven", "some words on a table"]}
    for raw in ({"image": [picture(20, 7), picture(10, 12)]}, texts, sounds):
        found = made(**processor(**raw, return_tensors="pt")).pooler_output
        expected = made.encode(processor(**raw))
        torch.testing.assert_close(nn.functional.normalize(found, dim=-1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("modality", [Picture(size=12, patch=4, frames=1), Video(size=8, patch=4, frames=4, tubelet=2)])
def test_padded_places_are_those_of_the_packed_spans(modality):
    shape = (3, 12, 12) if isinstance(modality, Picture) else (4, 3, 8, 8)
    values = [torch.rand(shape), torch.rand(shape)]
    tensors = modality.tensors([v[None] if v.ndim == 3 else v for v in values])
    expected = At(pack([[modality.span(v)] for v in values]).layout).place[:, :4]
    assert torch.equal(modality.padded_place(tensors, None).flatten(0, 1), expected)


def test_every_modality_whose_spans_may_carry_a_plane_says_so():
    gridded = {name for name in MODALITIES if modality_class(name).axes > 1}
    networks = {"backbone", "heard", "pretrained_audio", "pretrained_video", "pretrained_series"}
    assert gridded == {"image", "stages", "xray", "thermal", "depth", "audio", "video", "spectral"} | networks


@torch.no_grad()
def test_swiglu_is_timms_and_its_gate_is_the_upper_half():
    layers = pytest.importorskip("timm.layers")
    theirs = shaken(layers.SwiGLU(7, 5, norm_layer=nn.LayerNorm))
    ours = SwiGLU(7, 5, nn.GELU(), norm=1e-5)
    state = {"down.weight": theirs.fc2.weight, "down.bias": theirs.fc2.bias}
    state |= {f"norm.{end}": getattr(theirs.norm, end) for end in ("weight", "bias")}
    state |= {f"up.{e}": torch.cat([getattr(theirs.fc1_g, e), getattr(theirs.fc1_x, e)]) for e in ("weight", "bias")}
    ours.load_state_dict(state)
    x = torch.randn(3, 7)
    torch.testing.assert_close(ours(x, At(pack([[Span("x", {}, len(x))]]).layout)), theirs(x))


def test_a_fresh_gate_and_value_are_each_drawn_as_their_own_matrix():
    made = GeneralistModel(GeneralistConfig(hidden_size=64, num_attention_heads=4, channel_mixers="swiglu"))
    gate, value = made.encoder.layers[0].mlp.up.weight.chunk(2)
    bound = (6 / (64 + 512)) ** 0.5
    for matrix in (gate, value):
        assert 0.97 * bound < float(matrix.detach().abs().max()) <= bound


@torch.no_grad()
def test_experts_of_attention_turn_as_the_dense_model_does():
    dense = model(rotary=ROTARY, channel_mixers="swiglu")
    one = {"moe_placement": "all", "moe_parts": "attention", "moe_experts": 1, "moe_top": 1}
    experts = model(rotary=ROTARY, channel_mixers="swiglu", **one)
    own = experts.state_dict()
    taken = {
        name: value.unsqueeze(0) if value.ndim < own[name].ndim else value for name, value in dense.state_dict().items()
    }
    experts.load_state_dict(taken, strict=False)
    given = sequences(dense)
    torch.testing.assert_close(experts.features(pack(given)), dense.features(pack(given)), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rotary": {"temprature": 7}}, "rotary has no setting 'temprature'; did you mean 'temperature'"),
        ({"rotary": {}, "num_attention_heads": 4}, "heads of width 6 have no rotary positions of two axes"),
        ({"rotary": {"reference": -1}}, "reference >= 0"),
        ({"post_norm": True, "branch_norm": True}, "two rules for one norm"),
        ({"moe_placement": "odd", "channel_mixers": "swiglu"}, "the channel mixer 'swiglu' has no experts"),
        ({"moe_placement": "odd", "inner_norm": True}, "experts have no inner_norm"),
        ({"moe_placement": "odd", "relative": 9}, "experts have no relative"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_when_it_is_read(settings, words):
    with pytest.raises(UserError, match=words):
        GeneralistConfig(**{**SIZES, **settings})


def test_equal_weights_that_turn_otherwise_are_no_start_for_a_run(tmp_path):
    model(rotary=ROTARY).save_pretrained(tmp_path)
    load_initial(model(rotary=ROTARY), tmp_path)
    with pytest.raises(UserError, match="its model has position="):
        load_initial(model(), tmp_path)
