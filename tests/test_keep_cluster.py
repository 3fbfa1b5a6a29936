"""Steps that take tokens out of maps, by score or around centres: packed = one by one, hidden = taken out."""

import json
from dataclasses import replace

import pytest
import torch
from golden import losses
from references import BESIDE
from safetensors import safe_open
from test_at import SIZES, ragged, through
from tiny import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.encoder import Encoder
from generalist.nn.mixers.maps import MapMixer
from generalist.nn.steps.cluster import Cluster
from generalist.nn.steps.keep import Keep
from generalist.nn.steps.merge import Merge
from generalist.nn.steps.spatial import Spatial
from generalist.nn.taps import Kept
from generalist.tokenizers_mod.backbones.vit_res import Reduction
from generalist.tokenizers_mod.maps.convolve import Convolve
from generalist.train.prepare import prepare
from tests.test_at import AsStep


def blocks():
    torch.manual_seed(0)
    return list(Encoder(GeneralistConfig(**SIZES, rotary={})).eval().layers)


STEPS = {
    "keep": lambda: [Keep(24, 24, share=0.5, interpreter_heads=3)],
    "above a half": lambda: [Keep(24, 24, share=0, interpreter_heads=1)],
    "cluster": lambda: [Cluster(24, 24, tokens=4)],
    "spatial": lambda: [Spatial(24, 24)],
    "keep twice, merge": lambda: [Keep(24, 24, interpreter_heads=3), Keep(24, 24, interpreter_heads=3), Merge(24, 24)],
}


@pytest.mark.parametrize("name", STEPS)
@torch.no_grad()
def test_packed_equals_one_by_one_and_what_is_asked_is_there(name):
    first, second = blocks()
    torch.manual_seed(2)
    steps = [first, *(step.eval() for step in STEPS[name]()), AsStep(MapMixer(Convolve(24))), second]
    given = ragged()
    together, asked = through(steps, given, "all"), through(steps, given, "asked")
    for i, (own, sequence) in enumerate(zip(together, given, strict=True)):
        torch.testing.assert_close(own, through(steps, [sequence], "all")[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(asked[i], own[0])
    if name == "keep":  # half of 30, of 10 real cells beside a text, of 6 and of 2, nothing of a text and a set
        assert [len(own) for own in together] == [1 + 15, 1 + 5 + 4, 1 + 3 + 1, 1 + 5, 1 + 7, 1 + 6 + 15]
    if name == "cluster":
        assert [len(own) for own in together] == [1 + 4, 1 + 4 + 4, 1 + 4 + 2, 1 + 5, 1 + 7, 1 + 4 + 4]


@pytest.mark.parametrize("share", [0.0, 0.6])
@torch.no_grad()
def test_tokens_hidden_in_place_give_those_that_stay_the_numbers_of_tokens_taken_out(share):
    """Two keeps, a convolution over maps with holes and a merge between blocks; a token once out stays out."""
    first, second = blocks()
    torch.manual_seed(3)
    keeps = [Keep(24, 24, share=share, interpreter_heads=3).eval() for _ in range(2)]
    steps = [first, keeps[0], AsStep(MapMixer(Convolve(24))), keeps[1], second, Merge(24, 24)]
    given, before = ragged(), []
    taken = through(steps, given, "asked")
    for keep in keeps:
        keep.masked = True
    packed = pack(given)
    x, at = packed.data["x"]["x"][packed.row], At(packed.layout)
    for step in steps:
        x, at = step(x, at)
        before.append(int(at.hidden.sum()))
    assert 0 < before[1] < before[3] and before[5] == 0  # the merge has nothing of what is hidden
    torch.testing.assert_close(
        x[[int((at.origin == token).nonzero()) for token in packed.asked]], taken, atol=1e-5, rtol=1e-4
    )


def test_the_law_moves_the_interpreter_and_the_centres_and_not_what_is_computed():
    given = ragged()
    packed = pack(given)
    for step in (Keep(24, 24, interpreter_heads=3), Cluster(24, 24, tokens=3)):
        x = packed.data["x"]["x"][packed.row].requires_grad_()
        out, _ = step(x, At(packed.layout))
        quiet, _ = step.eval()(x, At(packed.layout))
        assert torch.equal(out, quiet)
        (out * torch.randn_like(out)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in step.parameters())


@torch.no_grad()
def test_a_map_of_which_nothing_is_left_goes_through_a_second_keep():
    keeps = [Keep(24, 24, share=share, interpreter_heads=1).eval() for share in (0, 0.5)]
    for keep in keeps:
        keep.masked = True
    packed = pack(ragged())
    x, at = packed.data["x"]["x"][packed.row], replace(At(packed.layout), taps=[lambda name, x, at: 0 * x])
    for keep in keeps:
        x, at = keep(x, at)
    assert all(int((p.cells >= 0).sum()) == 0 for p in at.pieces if p.cells is not None) and bool(at.hidden.any())


@torch.no_grad()
def test_of_every_map_those_of_the_highest_scores_go_on_in_their_order():
    packed = pack(ragged())
    x, at = packed.data["x"]["x"][packed.row], At(packed.layout)
    keep = Keep(24, 24, share=0.6, interpreter_heads=3).eval()
    n, origin = keep.norm(x), []
    for piece in at.placed:
        own = torch.arange(piece.start, piece.start + piece.length)
        if piece.shape is not None and len(piece.shape) > 1:
            first = next(p.start for p in at.placed if p.sequence == piece.sequence)
            q, k = keep.query(n[first]).view(3, 8), keep.key(n[own]).view(-1, 3, 8)
            score = ((q * k).sum(-1) / 8**0.5).sigmoid().mean(1)
            own = own[score.topk(round(0.6 * len(own))).indices.sort().values]
        origin += own.tolist()
    out, after = keep(x, at)
    assert sorted(after.origin.tolist()) == origin and len(origin) < len(x)
    assert torch.equal(out, x[after.origin])
    for piece in after.placed:  # each lies together, its tokens in their order, and says in which cells they are
        own = after.origin[piece.start : piece.start + piece.length]
        old = next(p for p in at.placed if p.start <= int(own[0]) < p.start + p.length)
        cells = torch.arange(old.length) if old.cells is None else old.cells
        assert old.sequence == piece.sequence and (own.diff() > 0).all()
        assert torch.equal(torch.arange(piece.length) if piece.cells is None else piece.cells, cells[own - old.start])


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("share", [0.0, 0.5])
@torch.no_grad()
def test_many_pictures_take_no_more_operations_than_few(share):
    keep, counts = Keep(24, 24, share=share, interpreter_heads=1).eval(), []
    for pictures in (2, 20):
        spans = [Span("x", {"x": torch.randn(1, 24)}, 1).ask([0]), Span("x", {"x": torch.randn(6, 24)}, 6, grid=(2, 3))]
        packed = pack([spans] * pictures)
        with Operations() as seen:
            keep(packed.data["x"]["x"][packed.row], At(packed.layout))
        counts.append(seen.count)
    assert counts[0] == counts[1]


@torch.no_grad()
def test_a_tap_decides_in_the_interpreters_stead():
    keep, picture = Keep(24, 24, share=0, interpreter_heads=1), Span("x", {"x": torch.randn(6, 24)}, 6, grid=(2, 3))
    packed = pack([[picture]])

    def third(name, x, at):
        return torch.arange(6).eq(2).float() if name.endswith("keep") else x

    x, at = keep(packed.data["x"]["x"][packed.row], replace(At(packed.layout), taps=[third]))
    assert torch.equal(x, picture.data["x"][2:3]) and next(iter(at.pieces)).cells.tolist() == [2]


@torch.no_grad()
def test_clusters_are_those_of_the_formula_and_a_scale_of_the_products_changes_nothing():
    torch.manual_seed(0)
    step, picture = Cluster(24, 24, tokens=3).eval(), Span("x", {"x": torch.randn(6, 24)}, 6, grid=(2, 3))
    packed = pack([[picture]])
    x = picture.data["x"]
    out, at = step(x, At(packed.layout))
    n = step.norm(x)
    nearest = (step.key(n) @ step.query(step.centres).T).argmax(1)
    rows = [step.value(n)[nearest == m] for m in range(3)]
    means = torch.stack([own.sum(0) / max(1, len(own)) for own in rows])
    torch.testing.assert_close(out, step.centres + step.out(means), atol=1e-5, rtol=1e-4)
    assert next(iter(at.pieces)).shape is None
    wide, _ = step(x, replace(At(packed.layout), taps=[lambda name, x, at: 5 * x]))
    torch.testing.assert_close(wide, out)


@torch.no_grad()
@pytest.mark.parametrize("grid", [(4, 6), (3, 5)])
def test_a_spatial_reduction_is_the_published_one_without_its_positions(grid):
    torch.manual_seed(0)
    count = grid[0] * grid[1]
    published, step = Reduction(24, 24, grid), Spatial(24, 24).eval()
    published.pos_embed.zero_()
    kernel = published.patch_reduce.weight.permute(0, 2, 3, 1).flatten(1)
    step.cells.load_state_dict({"weight": kernel, "bias": published.patch_reduce.bias})
    step.other.load_state_dict(published.token_transform.state_dict())
    summary, picture = (
        Span("x", {"x": torch.randn(1, 24)}, 1).ask([0]),
        Span("x", {"x": torch.randn(count, 24)}, count, grid=grid),
    )
    packed = pack([[summary, picture]])
    out, at = step(packed.data["x"]["x"][packed.row], At(packed.layout))
    first, cells, small = published(summary.data["x"][None], picture.data["x"][None], grid)
    torch.testing.assert_close(out, torch.cat([first[0], cells[0]]), atol=1e-5, rtol=1e-4)
    piece = next(p for p in at.pieces if p.shape is not None)
    assert piece.shape == small and len(set(at.origin.tolist())) == len(out)


@pytest.mark.skipif(
    not (BESIDE / "systems").is_dir(), reason="the file lies beside the checkout, in ../shared/reference"
)
@torch.no_grad()
def test_an_encoder_with_interpreters_equals_the_authors_model():
    """Three interpreters in front of two blocks each: scores, what is kept and the last class token."""
    with safe_open(BESIDE / "systems" / "ia_red_tiny.safetensors", "pt") as file:
        given = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    width, heads = config["width"], config["heads"]
    stage = {"kind": "keep", "share": 0, "interpreter_heads": config["interpreter_heads"]}
    steps = [{"stage": stage} if i % 2 == 0 else {} for i in range(config["depth"])]
    spec = GeneralistConfig(width=width, heads=heads, hidden=48, layers=6, steps=steps, eps=1e-6)
    encoder = Encoder(spec).eval()
    names = {"norm1": "norm1", "norm2": "norm2", "attn.qkv": "mixer.qkv", "attn.proj": "mixer.out"}
    names |= {"mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}
    own = {}
    for group in range(3):
        for kind in ("weight", "bias"):
            q, k, _ = given[f"sd.groups.{group}.agent.qk.{kind}"].chunk(3)
            own |= {f"layers.{3 * group}.query.{kind}": q, f"layers.{3 * group}.key.{kind}": k}
            for block in range(2):
                for theirs, ours in names.items():
                    key = f"sd.groups.{group}.block_list.{block}.{theirs}.{kind}"
                    own[f"layers.{3 * group + 1 + block}.{ours}.{kind}"] = given[key]
    encoder.load_state_dict(own)
    embedded = given["embedding"]
    side = config["image"] // config["patch"]
    spans = [
        [Span("x", {"x": e[:1]}, 1).ask([0]), Span("x", {"x": e[1:]}, side**2, grid=(side, side))] for e in embedded
    ]
    packed = pack(spans)
    seen = Kept("layers.0.keep", "layers.3.keep", "layers.6.keep")
    x, at = encoder(packed.data["x"]["x"][packed.row], replace(At(packed.layout), taps=[seen]))
    first = seen["layers.0.keep"][0].view(3, -1)
    torch.testing.assert_close(first[:, 1:], given["score_0"][:, 1:], atol=1e-5, rtol=1e-4)
    cells = {p.sequence: p.cells for p in at.pieces if p.shape is not None}
    for picture in range(3):
        expected = given["keep_2"][picture, 1:].nonzero().squeeze(1)
        left = torch.arange(side**2) if cells.get(picture) is None else cells[picture]
        assert left.tolist() == expected.tolist()
    asked = x[[int((at.origin == token).nonzero()) for token in packed.asked]]
    weights = {key: given[f"sd.{key}"] for key in ("norm.weight", "norm.bias", "head.weight", "head.bias")}
    normed = torch.nn.functional.layer_norm(asked, (width,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    logits = normed @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(logits, given["logits"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"kind": "keep", "share": 2}, "share=2; it lies in 0..1"),
        ({"kind": "keep", "interpreter_heads": 3}, "heads=3 does not divide"),
        ({"kind": "cluster", "tokens": 0}, "tokens=0; it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_read(stage, said):
    with pytest.raises(UserError, match=said):
        prepare(tiny(model__layers=1, model__steps=json.dumps([{"stage": stage}])))
    with pytest.raises(UserError, match="does not change the width of 16 to 32"):
        prepare(tiny(model__layers=1, model__steps=json.dumps([{"stage": "keep", "width": 32}])))


def test_a_recipe_with_both_steps_trains_and_its_model_is_the_same_when_loaded(tmp_path):
    stack = [{}, {"stage": {"kind": "keep", "share": 0.5}}, {"stage": {"kind": "cluster", "tokens": 2}}]
    recipe = tiny(model__layers=3, model__steps=json.dumps(stack), steps=4, modalities__image__patch=2)
    assert torch.tensor([loss for _, loss in losses(recipe)]).isfinite().all()
    made = prepare(recipe).model(recipe).eval()
    image, summary = made.modalities["image"], made.modalities["summary"]
    packed = pack([[summary.span(None).ask([0]), image.span(torch.rand(1, 8, 8))] for _ in range(2)])
    made.save_pretrained(tmp_path)
    loaded = GeneralistModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        _, at = made.encoded(packed)
        assert torch.equal(loaded.features(packed), made.features(packed))
    assert sorted(p.length for p in at.pieces) == [1, 1, 2, 2]
