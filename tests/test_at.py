"""Where tokens stand in a pass: pieces and grids, two pictures of one sequence apart, taps, a cache that counts."""

from dataclasses import replace

import pytest
import torch

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.model.config import GeneralistConfig
from generalist.model.decode import Anew, start
from generalist.nn.attention.relative import offsets_of
from generalist.nn.attention.rotary import Rotary, turn
from generalist.nn.encoder import Encoder
from generalist.nn.taps import Kept
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}


def span(n, grid=None, **more):
    return Span("x", {"x": torch.randn(n, 24)}, n, grid=grid, **more)


def test_pieces_say_where_every_span_lies_and_what_it_is():
    masked = torch.tensor([True, False, True, True, True, True])
    hidden = torch.tensor([False, True])
    sequences = [[span(1), span(6, (2, 3), mask=masked)], [span(2, (2,), hidden=hidden)], [span(3).ask([1]), span(4)]]
    packed = pack(sequences)
    pieces = list(packed.layout.pieces)
    assert [(p.sequence, p.length, p.shape) for p in pieces] == [
        (0, 1, None),
        (0, 5, (2, 3)),
        (1, 2, (2,)),
        (2, 3, None),
        (2, 4, None),
    ]
    assert [p.bound for p in pieces] == [False, False, True, False, False]
    assert [p.asked for p in pieces] == [False, False, False, True, False]
    assert pieces[1].cells.tolist() == [0, 2, 3, 4, 5]
    raw = torch.cat([s.data["x"] for sequence in sequences for s in sequence])
    x, first = packed.data["x"]["x"][packed.row], 0
    for piece, given in zip(pieces, [s for sequence in sequences for s in sequence], strict=True):
        own = raw[first : first + given.length]
        own = own if given.mask is None else own[given.mask]
        assert torch.equal(x[piece.start : piece.start + piece.length], own)
        first += given.length
    both = list((packed.layout + pack([[span(2, (2,))]]).layout).pieces)
    assert (both[-1].sequence, both[-1].start) == (3, packed.tokens)


def test_a_grid_that_is_not_its_spans_length_is_refused():
    with pytest.raises(ValueError, match="grid \\(2, 3\\) has not 5 cells"):
        span(5, (2, 3))


def test_grids_gather_maps_of_one_shape_a_text_is_a_line_and_a_film_its_pictures():
    gone = torch.tensor([True] * 5 + [False])
    one, film, text, some = span(6, (2, 3)), span(12, (2, 2, 3)), span(4, (4,)), span(6, (2, 3), mask=gone)
    causal = span(3, (3,), causal=torch.ones(3, dtype=torch.bool))
    packed = pack([[one, span(2)], [film], [text, some], [causal]])
    x = packed.data["x"]["x"][packed.row]
    grids = {grid.shape: grid for grid in At(packed.layout).grids(2)}
    assert set(grids) == {(2, 3), (1, 4)}  # the causal words are no map, the set is none either
    maps, real = x[grids[2, 3].index], grids[2, 3].real
    expected = [one.data["x"], *film.data["x"].view(2, 6, 24), some.data["x"]]
    assert len(maps) == 4 and real.sum() == 23
    for own in expected:
        assert any(
            torch.equal(torch.where(r[:, None], own, 0), torch.where(r[:, None], m, 0))
            for m, r in zip(maps, real, strict=True)
        )
    assert torch.equal(x[grids[1, 4].index][0], text.data["x"]) and grids[1, 4].real is None
    volumes = {grid.shape for grid in At(packed.layout).grids(3)}
    assert volumes == {(1, 2, 3), (2, 2, 3), (1, 1, 4)}


# --- positions ---


@pytest.mark.parametrize("reference", [0, 7])
def test_two_pictures_and_two_frames_of_one_sequence_do_not_lie_on_one_another(reference):
    rotary = Rotary(8, reference=reference)
    for spans, other in (([span(6, (2, 3)), span(6, (2, 3))], 6), ([span(12, (2, 2, 3))], 6)):
        at = At(pack([spans]).layout)
        angles = rotary.angles(at.place)
        q = torch.randn(1, 1, 8).expand(12, 1, 8)
        turned = turn(q, angles)[:, 0]
        scores = turned @ turned.T
        for cell in range(6):  # the same cell of two pictures is not at distance zero, though it is the same content
            assert abs(float(scores[cell, other + cell] - scores[cell, cell])) > 1e-3
        # inside each of them everything is as if it stood alone
        alone = turn(q[:6], rotary.angles(At(pack([[span(6, (2, 3))]]).layout).place))[:, 0]
        torch.testing.assert_close(scores[6:, 6:], alone @ alone.T, atol=1e-4, rtol=1e-4)
        assert torch.equal(turned[:6], alone)
        index = offsets_of(at).index[0][0]
        none = len(offsets_of(at).steps)
        assert (index[:6, 6:] == none).all() and (index[6:, :6] == none).all()
        assert torch.equal(index[:6, :6], index[6:, 6:]) and (index[:6, :6] < none).all()


@pytest.mark.parametrize("settings", [{"rotary": {}}, {"rotary": {"reference": 5}}, {"relative": 9}])
@torch.no_grad()
def test_which_of_two_pictures_a_patch_belongs_to_matters(settings):
    torch.manual_seed(0)
    encoder = Encoder(GeneralistConfig(**SIZES, **settings))
    for parameter in encoder.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    one, two = span(6, (2, 3)), span(6, (2, 3))
    packed = pack([[one, two]])
    x = torch.cat([one.data["x"], two.data["x"]])
    apart, _ = encoder(x, At(packed.layout))
    swapped = x.clone()
    swapped[2], swapped[8] = x[8], x[2]  # the third patch of either goes to the other
    mixed, _ = encoder(swapped, At(packed.layout))
    assert (apart[0] - mixed[0]).abs().max() > 1e-3


# --- taps ---


def model(**settings):
    torch.manual_seed(0)
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(["once upon a time", "a cat sat"])
    modalities = {"summary": Summary(), "text": text, "image": Image(size=12, patch=4, channels=1)}
    config = GeneralistConfig(
        **SIZES, **settings, modalities={name: m.settings() for name, m in modalities.items()}, scales=["default"]
    )
    return GeneralistModel(config).eval()


def sequences(made):
    image, text, summary = (made.modalities[name] for name in ("image", "text", "summary"))
    pictures = [image.span(torch.rand(1, 8, 4 * n)) for n in (2, 1, 3)]
    spans = [*([picture] for picture in pictures), [text.span("a cat")]]
    return [[summary.span(None).ask([0]), *more] for more in spans]


@torch.no_grad()
def test_taps_see_every_layer_its_heads_and_weights_and_can_put_something_in():
    made = model()
    packed = pack(sequences(made))
    made.set_attn_implementation("eager")
    seen = Kept("embedded", "layers.0", "layers.1", "heads", "weights")
    with made.tapped(seen):
        out = made(packed)
    assert torch.equal(seen["embedded"][0], made.embed(packed)) and torch.equal(seen["layers.1"][0], out)
    assert seen["layers.0.mixer.heads"][0].shape == (packed.tokens, 3, 8)
    weights = seen["layers.1.mixer.weights"]
    assert [len(w) for w in weights] == [g.count for g in packed.layout.groups]
    assert all(torch.allclose(w.sum(-1), torch.ones(1)) for w in weights)

    def silence(name, x, at):
        return torch.zeros_like(x) if name == "layers.1.mixer.heads" else x

    with made.tapped(silence):
        silent = made(packed)
    layer, x = made.encoder.layers[1], seen["layers.0"][0]
    expected = x + layer.mixer.out.bias
    torch.testing.assert_close(silent, expected + layer.mlp(layer.norm2(expected), made.at(packed)))
    uniform = lambda name, x, at: torch.full_like(x, 1 / x.shape[-1]) if name.endswith("0.mixer.weights") else x  # noqa: E731
    with made.tapped(uniform):
        changed = made(packed)
    assert not torch.allclose(changed, out) and torch.equal(made(packed), out)  # and nobody looks on any more


# --- what was read is kept by layer ---


@torch.no_grad()
def test_a_cache_knows_which_layers_kept_something_and_the_writer_encodes_anew_where_one_did_not():
    made = model()
    inputs = [sequence[:1] + sequence[1:] for sequence in sequences(made)[:2]]
    inputs = [[replace(sequence[0], asked=None), *sequence[1:]] for sequence in inputs]
    text = made.modalities["text"]
    writer = start(made, inputs, text, "default")
    assert sorted(writer.cache.layers) == [0, 1]
    layer = made.encoder.layers[1]
    layer.mixer = made.encoder.layers[0].mlp  # a token mixer that keeps no keys
    assert isinstance(start(made, inputs, text, "default"), Anew)
