"""Published networks as backbones: their maps, other sizes of pictures, gradients, saving, official names, bad sizes;
published values of those without a file of reference tensors."""

import re

import pytest
import torch
from transformers import AutoBackbone, AutoConfig

from generalist.data.base.errors import UserError
from generalist.scripts.systems import activator, duo
from generalist.scripts.systems.reference import Reference
from generalist.tokenizers_mod.backbones import stages
from generalist.tokenizers_mod.backbones.duo import under
from generalist.tokenizers_mod.backbones.parts import initialise
from generalist.tokenizers_mod.backbones.s2a import S2AFormer
from generalist.tokenizers_mod.backbones.vit_res import Reduction

FRAME = {"widths": [8, 16], "depths": [2, 1], "heads": [2, 4], "ratios": [2, 2]}
BLOCK = [1, [8, 2, 3], [8, 12], 1]
KINDS = {
    "cel": {"width": 16, "kernels": [4, 8, 16]},
    "crossformer": {
        "width": 32,
        "depths": [4, 2],
        "heads": [2, 4],
        "groups": [2, 3],
        "intervals": [2, 1],
        "ratios": [2, 2],
        "merges": [[2, 4]],
        "kernels": [4, 8],
        "cooling": True,
    },
    "duo": {
        "width": 8,
        "heads": 2,
        "scales": 2,
        "body": {"model_type": "stages", "kind": "s2a", **FRAME, "reduces": [2, 1]},
    },
    "s2a": FRAME | {"reduces": [4, 1], "strip": 2},
    "spectformer": {"width": 8, "depth": 3, "spectral": 2, "heads": 2, "ratio": 2, "patch": 8, "size": [32, 32]},
    "spectformer_h": FRAME | {"mixers": ["spectral_gate", "attention"], "stem": 4, "size": [32, 32]},
    "svt": FRAME | {"mixers": ["scattering", "attention"], "stem": 4, "size": [32, 32]},
    "t2t": {"width": 12, "inner": 4},
    "vit_res": {"definition": [[4, 8], BLOCK, [3, 8, 12], [1, [12, 2, 5], [12, 8], 1]], "patch": 8, "size": [32, 32]},
}
STRIDES = {"cel": [4], "duo": [8], "spectformer": [8], "t2t": [16], "vit_res": [8, 16]}


def made(kind, **changed):
    stages.register()
    torch.manual_seed(0)
    return AutoBackbone.from_config(AutoConfig.for_model("stages", kind=kind, **KINDS[kind] | changed))


def test_every_kind_of_its_own_is_tried():
    assert set(KINDS) | {"rmt"} >= set(stages.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_two_sizes_gradients_everywhere_and_saving(kind, tmp_path):
    backbone = made(kind)
    strides = STRIDES.get(kind, [4, 8])
    for rows, columns in ((32, 32), (32, 48)):
        maps = backbone(torch.randn(2, 3, rows, columns)).feature_maps
        shapes = [(c, rows // s, columns // s) for c, s in zip(backbone.channels, strides, strict=True)]
        assert [tuple(m.shape[1:]) for m in maps] == shapes
    loss = sum((m * torch.randn_like(m)).sum() for m in backbone(torch.randn(2, 3, 32, 48)).feature_maps)
    loss.backward()
    trained = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
    # prefix tokens of the last blocks reach no map
    deaf = {name for name, grad in trained.items() if grad is None or not grad.abs().sum()}
    assert all("token_transform" in name for name in deaf) if kind == "vit_res" else not deaf
    backbone.eval().save_pretrained(tmp_path)
    again = stages.Stages.from_pretrained(tmp_path).eval()
    x = torch.randn(1, 3, 32, 32)
    for a, b in zip(backbone(x).feature_maps, again(x).feature_maps, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("cel", {"kernels": [4, 7]}, "each kernel the stride and an even number more"),
        ("cel", {"width": 18}, "must be a multiple of 4"),
        ("crossformer", {"heads": [3, 4]}, "3 heads do not divide a width of 32"),
        ("crossformer", {"merges": []}, "merges one less"),
        ("duo", {"scales": 3}, "scales=3 of a body with 2 maps"),
        ("duo", {"body": {"model_type": "stagse"}}, "did you mean 'stages'"),
        ("s2a", {"reduces": [2]}, "need as many entries"),
        ("spectformer", {"spectral": 4}, "4 spectral blocks of 3"),
        ("spectformer_h", {"mixers": ["attention", "atention"]}, "did you mean 'attention'"),
        ("svt", {"size": [36, 36]}, "a map of 9 x 9 cells has an odd side"),
        ("svt", {"widht": 3}, "has no setting 'widht'; did you mean 'width"),
        ("t2t", {"style": "former"}, "performer or transformer"),
        ("vit_res", {"definition": [BLOCK]}, "must be a stem"),
        ("vit_res", {"definition": [[4, 8], [3, 8, 4]]}, "they cannot become fewer"),
    ],
)
def test_sizes_that_cannot_work_are_refused_in_one_line(kind, changed, words):
    with pytest.raises(UserError) as error:
        made(kind, **changed)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_empty_reduction_is_the_mean_of_four_cells_and_absent_blocks_change_nothing():
    reduction = Reduction(4, 6, (2, 2))
    for parameter in (*reduction.patch_reduce.parameters(), *reduction.token_transform.parameters()):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.zeros_(reduction.pos_embed)
    x, prefix = torch.randn(1, 12, 4), torch.randn(1, 2, 4)
    kept, cells, grid = reduction(prefix, x, (4, 3))
    assert grid == (2, 2) and torch.equal(kept[..., :4], prefix) and not kept[..., 4:].any()
    maps = torch.cat([x.view(4, 3, 4), torch.zeros(4, 1, 4)], dim=1)
    torch.testing.assert_close(cells.view(2, 2, 6)[1, 1, :4], maps[2:, 2:].sum((0, 1)) / 4)
    assert not cells[..., 4:].any()
    absent = made("vit_res", definition=[[4, 8], [1, [8, 2, 3], [8, 12], 0]]).eval()
    states = absent.network.states(torch.randn(1, 3, 32, 32))
    assert torch.equal(states[0][1], states[1][1])


def test_cells_under_a_cell_are_those_of_its_square_and_each_is_taken_once():
    fine = torch.arange(2 * 3 * 16.0).view(1, 1, 8, 12)
    four, two = under(fine, 2, 3)[0, ..., 0], under(fine, 4, 6)[0, ..., 0]
    assert four[0].tolist() == [*range(4), *range(12, 16), *range(24, 28), *range(36, 40)]
    assert two[1].tolist() == [2, 14, 3, 15]  # column by column
    assert sorted(four.flatten().tolist()) == sorted(two.flatten().tolist()) == list(range(96))


def test_official_names_find_every_weight_of_ours():
    for kind, prefix in (("crossformer", "layers.0.blocks.0.attn.qkv.weight"), ("t2t", "tokens_to_token.project.bias")):
        ours = made(kind).network
        assert type(ours).renamed(prefix) in ours.state_dict() and type(ours).renamed("head.weight") is None


@pytest.mark.parametrize("kind", ["cel", "crossformer", "spectformer", "spectformer_h", "svt", "t2t"])
def test_sizes_are_read_off_an_official_file(kind):
    """The weights of a network of ours under their official names: what they show of its settings is what they are."""
    own = {**KINDS[kind]}
    network = made(kind).network
    official = {
        "cel": [("scales.projs.", "patch_embed.projs."), ("^norm.", "patch_embed.norm.")],
        "crossformer": [
            ("stem.scales.projs.", "patch_embed.projs."),
            ("stem.", "patch_embed."),
            (r"stages\.(\d+)\.", r"layers.\1.blocks."),
            (r"between\.(\d+)\.scales\.projs\.", r"layers.\1.downsample.reductions."),
            (r"between\.(\d+)\.", r"layers.\1.downsample."),
            ("mixer.attn.", "attn."),
        ],
        "spectformer": [("^embed.", "patch_embed.proj.")],
        "t2t": [("^", "tokens_to_token.")],
    }
    frame = [
        (r"^embed\.", "patch_embed"),
        (r"^blocks\.", "block"),
        (r"^norms\.", "norm"),
        ("mlp.local", "mlp.dwconv.dwconv"),
    ]
    theirs = {}
    for name, value in network.state_dict().items():
        key = name
        for pattern, replacement in official.get(kind, frame):
            key = re.sub(pattern, replacement, key)
        assert type(network).renamed(key) == name
        theirs[key] = value
    found = type(network).sizes(theirs)
    shown = {key: value for key, value in own.items() if key in found}
    assert {key: found[key] for key in shown} == shown
    assert set(own) - set(found) <= {"heads", "groups", "intervals"}


def test_a_small_s2aformer_learns_which_corner_is_bright():
    torch.manual_seed(0)
    net = S2AFormer([8, 16], [1, 1], [2, 2], [2, 1], [2, 2])
    head = torch.nn.Linear(16, 4)
    initialise(head)
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(40):
        label = torch.randint(4, (16,))
        pictures = 0.1 * torch.randn(16, 3, 16, 16)
        for i, corner in enumerate(label):
            pictures[i, :, 8 * (corner // 2) : 8 * (corner // 2) + 8, 8 * (corner % 2) : 8 * (corner % 2) + 8] += 1
        logits = head(net(pictures)[-1].flatten(2).amax(2))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, label).backward()
        optimizer.step()
    assert (logits.argmax(1) == label).float().mean() > 0.8


# --- values of published computations, filled by a rule instead of a file ---


def filled(shape, rank):
    """2 frac(43758.5453 sin(12.9898 (i + 1) + 78.233 (r + 1))) - 1 in float64."""
    count = torch.Size(shape).numel()
    place = torch.arange(1, count + 1, dtype=torch.float64)
    wave = 43758.5453 * torch.sin(12.9898 * place + 78.233 * (rank + 1))
    return (2 * (wave - wave.floor()) - 1).reshape(shape)


def by_rule(shapes, given):
    """A reference whose weights follow the rule, sorted by their names, and its input."""
    weights = {}
    for rank, name in enumerate(sorted(shapes)):
        one = 1.0 if len(shapes[name]) == 1 and name.endswith("weight") else 0.0
        weights[name] = (0.3 * filled(shapes[name], rank) + one).float()
    return weights, {"input": filled(given, -1).float()}


def linear(name, out, width):
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def said(output, first, last, total, absolute):
    flat = output.flatten()
    torch.testing.assert_close(flat[:6], torch.tensor(first), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(flat[-3:], torch.tensor(last), atol=2e-5, rtol=1e-4)
    assert float(flat.double().sum()) == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert float(flat.double().abs().sum()) == pytest.approx(absolute, rel=1e-4)


@pytest.mark.parametrize("whole", [True, False])
@torch.no_grad()
def test_activator_has_the_published_values(whole):
    shapes = {}
    for i in range(2):
        shapes |= norm(f"model.{i}.norm", 8) | norm(f"model.{i}.actgu.norm", 12)
        shapes |= linear(f"model.{i}.actgu.proj_1", 12, 8) | linear(f"model.{i}.actgu.proj_2", 12, 8)
        shapes |= linear(f"model.{i}.actgu.proj_3", 8, 12)
        if whole:
            shapes |= linear(f"model.{i}.ffn.net.0", 12, 8) | linear(f"model.{i}.ffn.net.3", 8, 12)
    assert len(shapes) == (28 if whole else 20)
    weights, tensors = by_rule(shapes, (2, 5, 8))
    reference = Reference("activator", {}, weights, tensors)
    assert activator.knows(reference)
    output = activator.compute(reference)["output"]
    assert output.shape == (2, 5, 8)
    if whole:
        first = [-1.13078, -1.4151, 0.133379, -0.649155, 2.16987, 0.512899]
        said(output, first, [-1.10067, -0.860134, 1.90981], -13.7128, 78.4688)
    else:
        first = [-0.803226, -1.16019, 1.83765, -1.50545, 1.45818, 0.129477]
        said(output, first, [-0.708736, -1.23776, -0.113665], -4.88041, 83.5404)


@torch.no_grad()
def test_duoformer_has_the_published_values():
    shapes = {"cls_token": (1, 1, 8), "pos_embed": (1, 50, 8), "pos_embed_for_scale": (1, 1, 22, 8)}
    for i in range(2):
        shapes |= norm(f"scaleBlocks.{i}.norm1", 8) | norm(f"scaleBlocks.{i}.norm2", 8)
        shapes |= linear(f"scaleBlocks.{i}.attn.qkv", 24, 8) | linear(f"scaleBlocks.{i}.attn.proj", 8, 8)
        shapes |= linear(f"scaleBlocks.{i}.mlp.fc1", 16, 8) | linear(f"scaleBlocks.{i}.mlp.fc2", 8, 16)
        shapes |= linear(f"blocks.{i}.attn.qkv", 24, 8) | linear(f"blocks.{i}.attn.proj", 8, 8)
    shapes |= norm("fc_norm", 8) | linear("head", 3, 8)
    assert len(shapes) == 39
    weights, tensors = by_rule(shapes, (2, 49, 22, 8))
    reference = Reference("duo", {"num_heads": 2}, weights, tensors)
    assert duo.knows(reference)
    first = [-0.271578, 0.151805, 0.243134, -0.270203, 0.156909, 0.2376]
    said(duo.compute(reference)["output"], first, first[3:], 0.247667, 1.33123)
