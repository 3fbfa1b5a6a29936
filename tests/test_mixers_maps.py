"""Mixers on maps and lean ones: what each computes, sizes other than its own, masked cells, and what is refused."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch.nn.functional import scaled_dot_product_attention

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.encoder import Encoder
from generalist.nn.mixers.lean import Activator, MinimalAttention
from generalist.nn.mixers.maps import MapMixer
from generalist.recipe.encoder import EncoderSpec
from generalist.tokenizers_mod.maps.pool import RandomMix
from generalist.tokenizers_mod.maps.scattering import Scattering
from generalist.tokenizers_mod.maps.spectral import SpectralGate
from generalist.tokenizers_mod.maps.strip import Strip
from generalist.tokenizers_mod.maps.wavelets import forward_transform, inverse_transform
from generalist.tokenizers_mod.maps.window import Window

PICTURE = {"class": "generalist.tokenizers_mod.vision.video:Picture", "size": 16, "patch": 4}
IMAGE = {"size": 20, "patch": 4, "channels": 1}


def drawn(module, seed=0):
    """With numbers that hide nothing: no zero biases, no unit gains."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


def span(n, grid=None, **more):
    return Span("x", {"x": torch.randn(n, 16)}, n, grid=grid, **more)


# --- spectral gates ---


def test_a_gate_of_ones_changes_nothing_whatever_the_size_and_one_shift_is_a_shift():
    gate = SpectralGate(4, 6, 5)
    gate.complex_weight.data = torch.tensor([1.0, 0.0]).expand_as(gate.complex_weight).clone()
    for rows, columns in ((6, 5), (6, 6), (3, 8), (9, 7), (1, 11)):
        x = torch.randn(2, rows, columns, 4)
        torch.testing.assert_close(gate(x, None), x, atol=1e-5, rtol=1e-5)
    drawn(gate)
    x = torch.randn(1, 6, 5, 4)
    torch.testing.assert_close(gate(x.roll((2, 1), (1, 2)), None), gate(x, None).roll((2, 1), (1, 2)))


def test_a_gate_of_another_size_lies_between_its_neighbours_frequencies():
    gate = drawn(SpectralGate(2, 4, 8))
    weight = gate.complex_weight
    twice = gate.gate(8, 16)
    torch.testing.assert_close(twice[::2, ::2], weight)
    torch.testing.assert_close(twice[7, 4], (weight[3, 2] + weight[0, 2]) / 2)  # rows are a period
    torch.testing.assert_close(twice[2, 5], (weight[1, 2] + weight[1, 3]) / 2)
    assert torch.equal(gate.gate(4, 8), weight)


# --- wavelets ---


def test_the_transform_is_undone_on_maps_smaller_than_its_filters():
    for rows, columns in ((2, 2), (4, 6), (16, 2), (20, 24)):
        x = torch.randn(2, 3, rows, columns)
        low, high = forward_transform(x)
        assert low.shape == x.shape and high.shape == (2, 3, 6, rows // 2, columns // 2, 2)
        torch.testing.assert_close(inverse_transform(low, high), x, atol=1e-5, rtol=1e-5)


def test_scattering_takes_other_even_maps_and_refuses_odd_ones():
    mixer = drawn(Scattering(8, rows=4, columns=4, blocks=2))
    assert mixer(torch.randn(1, 6, 2, 8), None).shape == (1, 6, 2, 8)
    with pytest.raises(UserError, match="a map of 3 x 4 cells has an odd side"):
        mixer(torch.randn(1, 3, 4, 8), None)
    with pytest.raises(UserError, match="7 channels are not 2 equal blocks"):
        Scattering(7, blocks=2)


# --- windows ---


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (4, 7)])
def test_windows_that_shift_are_swins(shape, shift):
    torch.manual_seed(0)
    block = drawn(SwinTransformerBlock(16, shape, num_heads=2, window_size=4, shift_size=shift, always_partition=True))
    mixer = Window(16, 2, size=4, odd=shift > 0).eval().requires_grad_(False)
    theirs = {f"attn.{k}": v for k, v in block.attn.state_dict().items() if "index" not in k}
    theirs["attn.pos.relative_position_bias_table"] = theirs.pop("attn.relative_position_bias_table")
    mixer.load_state_dict(theirs)
    x = torch.randn(2, *shape, 16)
    if all(side % 4 == 0 for side in shape):  # timm lets what it pads be seen
        torch.testing.assert_close(mixer(x, None), block._attn(x), atol=1e-5, rtol=1e-4)
    # each cell alone: it sees the cells of its shifted window that are there
    moved = mixer.groups(*shape).shift
    q, k, v = mixer.attn.qkv(x).unflatten(-1, (3, 2, 8)).unbind(3)
    for r, c in ((0, 0), (shape[0] - 1, shape[1] - 1), (3, 5)):
        part = lambda i, j: ((i - moved[0]) // 4, (j - moved[1]) // 4)  # noqa: E731
        cells = [(i, j) for i in range(shape[0]) for j in range(shape[1]) if part(i, j) == part(r, c)]
        offset = torch.tensor([(r - i, c - j) for i, j in cells])
        keys, values = (torch.stack([t[:, i, j] for i, j in cells], 2) for t in (k, v))
        scores = torch.einsum("bhd,bhnd->bhn", q[:, r, c], keys) / 8**0.5 + mixer.attn.pos(offset).T
        expected = mixer.attn.proj(torch.einsum("bhn,bhnd->bhd", scores.softmax(-1), values).flatten(1))
        torch.testing.assert_close(mixer(x, None)[:, r, c], expected, atol=1e-5, rtol=1e-4)


def test_far_groups_are_every_second_cell_and_an_interval_of_one_is_near():
    near, far = (drawn(Window(16, 2, "cross", size=2, interval=i, odd=True)) for i in (1, 2))
    far.load_state_dict(near.state_dict())
    x = torch.randn(1, 4, 4, 16)
    shuffled = x.view(1, 2, 2, 2, 2, 16).permute(0, 2, 1, 4, 3, 5).reshape(1, 4, 4, 16)  # rows 0 2 1 3, columns too
    back = far(x, None).view(1, 2, 2, 2, 2, 16).permute(0, 2, 1, 4, 3, 5).reshape(1, 4, 4, 16)
    torch.testing.assert_close(near(shuffled, None), back)
    first = drawn(Window(16, 2, "cross", size=2, odd=False))
    first.load_state_dict(near.state_dict())
    torch.testing.assert_close(first(x, None), near(x, None))  # one cell apart is adjacent
    line = torch.randn(1, 1, 8, 16)
    assert far.groups(1, 8)[:3] == (1, 2, (1, 2))
    assert far(line, None).shape == line.shape


def test_masked_cells_are_no_keys_of_any_mixer_on_maps():
    real = torch.ones(1, 4, 6, dtype=torch.bool)
    real[0, 1, 2:] = real[0, :2, 4:] = False
    x = torch.randn(1, 4, 6, 16)
    other = torch.where(real.unsqueeze(-1), x, torch.tensor(50.0))
    mixers = [
        Window(16, 2, odd=True),
        Window(16, 2, "cross", 2, odd=True),
        Strip(16, 2),
        Strip(16, 2, reduce=2, strip=3),
    ]
    mixers += [SpectralGate(16, 4, 6), Scattering(16, rows=4, columns=6), RandomMix(16)]
    for mixer in map(drawn, mixers):
        torch.testing.assert_close(mixer(x, real)[real], mixer(other, real)[real], msg=type(mixer).__name__)
        everywhere = torch.ones_like(real)
        torch.testing.assert_close(mixer(x, everywhere), mixer(x, None), atol=1e-5, rtol=1e-4)


def test_every_second_window_of_a_recipe_is_odd_and_what_is_said_stays():
    made = Encoder(
        EncoderSpec(
            width=16,
            heads=2,
            layers=6,
            mixers=["window", "attention", "window", "window", "pool", {"kind": "window", "odd": True}],
        )
    )
    odd = [
        b.mixer.operator.odd
        for b in made.layers
        if isinstance(b.mixer, MapMixer) and isinstance(b.mixer.operator, Window)
    ]
    assert odd == [False, True, False, True]
    matrices = {tuple(weight.shape): count for weight, count in made.layers[0].mixer.matrices()}
    assert matrices[48, 16] == 3  # q, k, v start as three matrices


# --- strips, random ---


def test_a_strip_as_wide_as_a_head_is_attention_and_scores_cost_what_they_should():
    from torch.utils.flop_counter import FlopCounterMode

    mixer = drawn(Strip(16, 2, strip=8))
    x = torch.randn(2, 3, 4, 16)
    q, k, v = (linear(x.flatten(1, 2)).unflatten(-1, (2, 8)).transpose(1, 2) for linear in (mixer.q, mixer.k, mixer.v))
    expected = mixer.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).view_as(x)
    torch.testing.assert_close(mixer(x, None), expected, atol=1e-6, rtol=1e-5)
    small = drawn(Strip(16, 4, reduce=2, strip=1))
    with FlopCounterMode(display=False) as counter:
        small(torch.randn(1, 8, 8, 16), None)
    linears = 2 * (64 * 16 * 4 + 16 * 16 * 4 + 16 * 16 * 16 + 64 * 16 * 16)
    convolution, scores, mixed = 2 * 16 * 16 * 4, 2 * 64 * 16 * 4, 2 * 64 * 16 * 16
    assert counter.get_total_flops() == linears + convolution + scores + mixed
    assert sum(p.numel() for m in (small.q, small.k) for p in [m.weight]) == 2 * 16 * 4 * 1
    line = torch.randn(1, 1, 6, 16)  # a line is not reduced
    q, k, v = (m(line.flatten(1, 2)).unflatten(-1, (4, -1)).transpose(1, 2) for m in (small.q, small.k, small.v))
    whole = small.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).view_as(line)
    torch.testing.assert_close(small(line, None), whole)


def test_random_weights_are_a_mean_and_the_same_in_every_model():
    x = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(RandomMix(8)(torch.ones_like(x), None), torch.ones_like(x))
    assert torch.equal(RandomMix(8)(x, None), RandomMix(8)(x, None))
    assert not torch.allclose(RandomMix(8, seed=1)(x, None), RandomMix(8)(x, None))


# --- lean mixers ---


def test_an_activator_mixes_no_tokens():
    mixer, at = drawn(Activator(8, 2)), At(pack([[span(5)]]).layout)
    x = torch.randn(5, 8)
    other = x.clone()
    other[2] += 1
    changed = (mixer(other, at) - mixer(x, at)).abs().amax(1)
    assert changed[2] > 1e-3 and changed[[0, 1, 3, 4]].max() == 0
    order = torch.randperm(5)
    torch.testing.assert_close(mixer(x[order], at), mixer(x, at)[order])


def test_minimal_attention_has_the_matrices_it_says_and_the_scores_they_give():
    at = At(pack([[span(7)]]).layout)
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    sizes = {("separate", "full"): 4 * 64, ("shared", "full"): 3 * 64, ("shared", "none"): 64, ("cholesky", "none"): 36}
    sizes |= {("collapsed", "full"): 3 * 64, ("collapsed", "none"): 64}
    made = {key: drawn(MinimalAttention(8, 1, *key)) for key in sizes}
    assert {key: count(m) for key, m in made.items()} == sizes
    x = torch.randn(7, 8)
    full, collapsed = made["separate", "full"], made["collapsed", "full"]
    collapsed.load_state_dict(
        {"q.weight": full.k.weight.T @ full.q.weight, "v.weight": full.v.weight, "out.weight": full.out.weight}
    )
    torch.testing.assert_close(collapsed(x, at), full(x, at), atol=1e-5, rtol=1e-5)
    for name in ("shared", "cholesky"):
        q, k = made[name, "none"].scored(x)
        scores = q @ k.T
        torch.testing.assert_close(scores, scores.T)
        assert torch.linalg.eigvalsh(scores).min() > -1e-4
    for name in ("shared", "collapsed", "cholesky"):
        mixed = made[name, "none"](x, at)  # in the convex hull of the tokens
        assert (mixed >= x.amin(0) - 1e-5).all() and (mixed <= x.amax(0) + 1e-5).all()
    two = drawn(MinimalAttention(8, 2))
    q, k, v = (m(x).unflatten(-1, (2, 4)).transpose(0, 1) for m in (two.q, two.k, two.v))
    torch.testing.assert_close(two(x, at), two.out(scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)))


@pytest.mark.parametrize("norm", ["pre", "post", "branch"])
def test_a_block_without_a_channel_mixer_has_one_branch(norm):
    spec = EncoderSpec(width=16, heads=2, layers=1, channel_mixers="none", norm=norm, layer_scale=0.5)
    block = drawn(Encoder(spec)).layers[0]
    assert {name.partition(".")[0] for name, _ in block.named_parameters()} <= {"norm1", "mixer", "gamma1"}
    x, at = torch.randn(6, 16), At(pack([[span(6)]]).layout)
    mixed = block.mixer(block.norm1(x) if norm == "pre" else x, at)
    expected = {
        "pre": x + block.gamma1 * mixed,
        "post": block.norm1(x + mixed),
        "branch": x + block.gamma1 * block.norm1(mixed),
    }
    torch.testing.assert_close(block(x, at)[0], expected[norm])


def test_a_convolution_in_the_mlp_sees_maps_and_leaves_other_tokens():
    block = drawn(Encoder(EncoderSpec(width=16, heads=2, hidden=24, layers=1, channel_mixers="conv_mlp"))).layers[0]
    mlp = block.mlp
    packed = pack([[span(1), span(6, (2, 3))], [span(5)]])
    x = packed.data["x"]["x"][packed.row]
    out = mlp(x, At(packed.layout))
    maps = next(p for p in packed.layout.pieces if p.shape == (2, 3))
    own = slice(maps.start, maps.start + 6)
    up = mlp.up(x)
    local = mlp.local(up[own].view(2, 3, 24).permute(2, 0, 1)[None])[0].permute(1, 2, 0).reshape(6, 24)
    up[own] = local
    torch.testing.assert_close(out, mlp.down(torch.nn.functional.gelu(up)))


# --- what is refused when a recipe is read ---


@pytest.mark.parametrize(
    ("mixers", "modality", "words"),
    [
        (["scattering", "attention"], IMAGE, "a map of 5 x 5 cells has an odd side"),
        ([{"kind": "scattering", "style": "token"}, "attention"], PICTURE, "its weights are of 14 x 14"),
        (
            [{"kind": "window", "size": 7}, "attention"],
            PICTURE,
            "a map of 4 x 4 cells is smaller than its window; set size=4",
        ),
        ([{"kind": "window", "style": "swin"}, "attention"], PICTURE, "window: style 'swin'"),
        ([{"kind": "window", "siez": 2}, "attention"], PICTURE, "did you mean 'size'"),
        (
            [{"kind": "window", "size": "two"}, "attention"],
            PICTURE,
            "the mixer 'window' cannot be built of {'size': 'two'",
        ),
        (["windows", "attention"], PICTURE, "did you mean 'window'"),
        ({"kind": "minimal_attention", "qk": "collapsed"}, PICTURE, "of one head, not 2; set model.heads=1"),
        (
            {"kind": "minimal_attention", "qk": "one"},
            PICTURE,
            "qk 'one'; it is separate, shared, collapsed or cholesky",
        ),
        ("activator", PICTURE, "an asked token learns nothing"),
        ("identity", PICTURE, "an asked token learns nothing"),
        (["window", "strip"], PICTURE, "an asked token learns nothing"),
        ([{"kind": "strip", "reduce": 0}, "attention"], PICTURE, "strip: reduce 0"),
        ([{"kind": "spectral_gate", "rows": 0}, "attention"], PICTURE, "a gate of 0 x 14 cells"),
        ([{"kind": "scattering", "blocks": 3}, "attention"], PICTURE, "16 channels are not 3 equal blocks"),
    ],
)
def test_mixers_that_cannot_work_are_refused_in_one_line(mixers, modality, words):
    with pytest.raises(UserError) as error:
        GeneralistConfig(width=16, heads=2, layers=2, mixers=mixers, modalities={"image": modality})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_grid_mixer_in_a_model_of_tables_or_of_causal_texts_is_refused():
    for mixers, keys in ((["window", "attention"], {}), ("attention", {"channel_mixers": "conv_mlp"})):
        with pytest.raises(UserError, match="works on grids of 2 axes"):
            GeneralistConfig(width=16, heads=2, layers=2, mixers=mixers, modalities={"table": {}}, **keys)
        causal = {"tokenizer": "", "learn": 300, "causal": True}
        with pytest.raises(UserError, match="cannot be causal"):
            GeneralistConfig(width=16, heads=2, layers=2, mixers=mixers, modalities={"text": causal}, **keys)
