"""Where tokens stand in a pass: pieces and grids, two pictures of one sequence apart, taps, a cache that counts."""

from dataclasses import replace

import pytest
import torch

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.pieces import Pieces
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.decode import Anew, start
from generalist.nn.attention.positions.relative import offsets_of
from generalist.nn.attention.positions.rotary import Rotary, turn
from generalist.nn.encoder import Encoder
from generalist.nn.mixers.maps import MapMixer
from generalist.nn.steps.base import Step
from generalist.nn.steps.merge import Merge
from generalist.nn.taps import Kept
from generalist.tokenizers_mod.maps.convolve import Convolve
from generalist.tokenizers_mod.maps.pool import Pool
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


# --- maps and merges ---


def ragged():
    """Pictures of four sizes, one with holes, a film, a text and a point set, each asked at a summary."""
    torch.manual_seed(1)
    gone = torch.ones(12, dtype=torch.bool)
    gone[[3, 11]] = False
    pictures = [span(30, (5, 6)), span(12, (3, 4), mask=gone), span(6, (2, 3)), span(2, (1, 2))]
    inputs = [[pictures[0]], [pictures[1], span(4, (4,))], [pictures[2], pictures[3]], [span(5, (5,))], [span(7)]]
    inputs += [[span(12, (2, 2, 3)), pictures[0]]]
    return [[span(1).ask([0]), *spans] for spans in inputs]


def through(steps, sequences, keep):
    """What the steps give at the asked tokens, or at all, sequence by sequence."""
    packed = pack(sequences)
    x, at = packed.data["x"]["x"][packed.row], At(packed.layout)
    for step in steps:
        x, at = step(x, at)
    origin = torch.arange(packed.tokens) if at.origin is None else at.origin
    if keep == "asked":
        return x[[int((origin == token).nonzero()) for token in packed.asked]]
    return [x[packed.owner[origin] == i] for i in range(packed.sequences)]


class AsStep(Step):
    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, x, at):
        return x + self.mixer(x, at), at


@pytest.mark.parametrize("operator", [Pool(24), Pool(24, size=5), Convolve(24)], ids=["pool", "pool 5", "convolve"])
@torch.no_grad()
def test_operators_on_maps_of_four_sizes_beside_a_text_and_a_set_equal_one_by_one(operator):
    given, step = ragged(), AsStep(MapMixer(operator))
    together = through([step], given, "all")
    for own, sequence in zip(together, given, strict=True):
        torch.testing.assert_close(own, through([step], [sequence], "all")[0])
    picture = given[0][1].data["x"]
    expected = picture + operator(picture.view(1, 5, 6, 24), None).view(30, 24)
    torch.testing.assert_close(together[0][1:], expected)
    assert torch.equal(together[0][0], given[0][0].data["x"][0])  # the summary has no map, nothing is added
    assert torch.equal(together[4][1:], given[4][1].data["x"])
    line = given[3][1].data["x"]  # a text is a line of one row
    torch.testing.assert_close(together[3][1:], line + operator(line.view(1, 1, 5, 24), None).view(5, 24))


@torch.no_grad()
def test_what_is_masked_does_not_count_in_an_operator():
    x, real = torch.randn(1, 3, 4, 8), torch.ones(1, 3, 4, dtype=torch.bool)
    real[0, 1, 2] = False
    pooled = Pool(8)(x, real)
    window = [(r, c) for r in (0, 1, 2) for c in (1, 2, 3) if (r, c) != (1, 2)]
    for r, c in ((0, 1), (0, 2), (2, 3)):
        near = [(i, j) for i in range(3) for j in range(4) if abs(i - r) <= 1 and abs(j - c) <= 1 and (i, j) != (1, 2)]
        expected = torch.stack([x[0, i, j] for i, j in near]).mean(0) - x[0, r, c]
        torch.testing.assert_close(pooled[0, r, c], expected)
    for operator in (Pool(8), Convolve(8)):
        other = x.clone()
        other[0, 1, 2] = 100.0
        for r, c in window:
            torch.testing.assert_close(operator(x, real)[0, r, c], operator(other, real)[0, r, c])


@torch.no_grad()
def test_a_merge_and_blocks_behind_it_equal_one_by_one_and_asked_tokens_survive():
    torch.manual_seed(0)
    blocks = Encoder(GeneralistConfig(**SIZES, rotary={})).layers
    wide = Encoder(GeneralistConfig(**{**SIZES, "hidden_size": 36}, rotary={})).layers
    steps = [blocks[0], Merge(24, 36), wide[0], Merge(36, 36), wide[1]]
    given = ragged()
    together = through(steps, given, "all")
    asked = through(steps, given, "asked")
    assert [len(own) for own in together] == [1 + 4, 1 + 1 + 4, 1 + 1 + 1, 1 + 5, 1 + 7, 1 + 2 + 4]
    for i, (own, sequence) in enumerate(zip(together, given, strict=True)):
        torch.testing.assert_close(own, through(steps, [sequence], "all")[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(asked[i], own[0])
    merge = Merge(24, 36)
    picture = given[2][1].data["x"].view(2, 3, 24)
    edge = torch.cat([picture[0, 2], torch.zeros(24), picture[1, 2], torch.zeros(24)])
    first = torch.cat([picture[0, 0], picture[0, 1], picture[1, 0], picture[1, 1]])
    expected = merge.cells(merge.norm(torch.stack([first, edge])))
    torch.testing.assert_close(through([merge], given, "all")[2][1:3], expected)


@torch.no_grad()
def test_what_is_asked_causal_or_hidden_is_not_merged_and_never_lost():
    asked = span(4, (2, 2)).ask([3])
    causal = span(4, (2, 2), causal=torch.tensor([False, False, True, True]))
    merge = Merge(24, 24)
    packed = pack([[asked], [causal], [span(4, (2, 2))]])
    x, at = merge(packed.data["x"]["x"][packed.row], At(packed.layout))
    assert sorted(p.length for p in at.pieces) == [1, 4, 4] and len(x) == 9
    assert torch.equal(at.block, packed.layout.block[at.origin])
    before = At(packed.layout)
    dropped = [(p._replace(length=1), torch.tensor([p.start])) for p in before.pieces.placed()]
    with pytest.raises(ValueError, match="asked, causal or hidden"):
        before.rebuilt(dropped)


@torch.no_grad()
def test_a_model_with_a_merge_answers_as_one_by_one_and_in_one_pass_with_candidates():
    made = model()
    made.encoder.layers.insert(1, Merge(24, 24))
    given = sequences(made)
    together = made.features(pack(given))
    alone = torch.cat([made.features(pack([s])) for s in given])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    both = made.encode_together([pack(given[1:]), pack(given[:1])])
    torch.testing.assert_close(torch.cat([both[1], both[0]]), together, atol=1e-5, rtol=1e-4)


def test_pieces_behind_others_are_each_moved_and_none_is_mixed_up():
    first = Pieces([0, 1], [0, 4], [4, 3], [(2, 2), None], {0: torch.arange(4)}, {1}, {0})
    other = Pieces([0, 0], [0, 2], [2, 5], [None, (5,)], {1: torch.arange(5)}, set(), {1})
    moved = [piece._replace(sequence=piece.sequence + 2, start=piece.start + 7) for piece in other]
    for own, wanted in zip(first.behind(7, 2, other), [*first, *moved], strict=True):
        assert own[:4] == wanted[:4] and own[5:] == wanted[5:]
        assert (own.cells is None) == (wanted.cells is None)
        assert own.cells is None or torch.equal(own.cells, wanted.cells)
