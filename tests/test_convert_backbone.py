"""Official files of published networks become backbone folders whose maps are the authors'."""

import json

import pytest
import torch
from safetensors.torch import save_file

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones import stages
from generalist.tokenizers_mod.backbones.rmt import RMT
from generalist.tokenizers_mod.backbones.stages import KINDS, Stages, StagesConfig, network_class, settings_of

SMALL = {"widths": [8, 12], "depths": [1, 2], "heads": [2, 3], "spans": [4, 6], "ratios": [3, 2], "axes": [True, False]}
SMALL |= {"initials": [2, 3], "scaled": [False, True], "layer_scale": 0.5}


def official(network):
    """The weights by the authors' names, which `RMT.names` undo, and what they store besides."""
    back = {"stem.": "patch_embed.proj.", ".mixer.local.": ".retention.lepe.conv.", ".mlp.local.": ".ffn.dwconv.conv."}
    back |= {".norm1.": ".retention_layer_norm.", ".norm2.": ".final_layer_norm.", ".mlp.": ".ffn.", "gamma": "gamma_"}
    back |= {f".mixer.{name}.": f".retention.{name}_proj." for name in ("q", "k", "v", "out")}
    back |= {".position.": ".pos.conv.", "between.0.0.": "layers.0.downsample.reduction."}
    back |= {"between.0.1.": "layers.0.downsample.norm."}
    found = {"head.weight": torch.zeros(3, 4)}
    for key, value in network.state_dict().items():
        for ours, theirs in back.items():
            key = key.replace(ours, theirs)
        if key.startswith("stages."):
            _, stage, block, rest = key.split(".", 3)
            key = f"layers.{stage}.blocks.{block}.{rest}"
        found[key] = value.view(1, 1, 1, -1) if "gamma_" in key else value
    for i, (heads, span, initial) in enumerate(zip(SMALL["heads"], SMALL["spans"], SMALL["initials"], strict=True)):
        found[f"layers.{i}.Relpos.decay"] = torch.log(1 - 2 ** (-initial - span * torch.arange(heads) / heads))
    return found


def test_an_official_file_becomes_a_backbone_with_its_sizes_and_its_maps(tmp_path, capsys):
    torch.manual_seed(0)
    network = RMT(**SMALL).eval()
    save_file(official(network), tmp_path / "rmt.safetensors")
    command = [
        "convert",
        "backbone",
        str(tmp_path / "rmt.safetensors"),
        "--kind",
        "rmt",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--settings", '{"axes": [true, false]}']) == 0
    said = capsys.readouterr().out
    assert "missing: 0" in said and "unexpected: 0" in said and "head.weight" in said

    again = Stages.from_pretrained(tmp_path / "out").eval()
    assert again.config.settings == SMALL | {"layer_scale": 1.0} and again.channels == [8, 12]
    pixels = torch.randn(2, 3, 16, 24)
    for ours, theirs in zip(again(pixels).feature_maps, network(pixels), strict=True):
        assert torch.equal(ours, theirs)
    assert main([*command[:3], "--kind", "rmtt", "--out", str(tmp_path / "x")]) == 2
    assert "unknown kind 'rmtt'; did you mean 'rmt'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"axis": [true]}', "rmt has no setting 'axis'; did you mean 'axes'"),
        ("[1]", "--settings takes an object"),
        ("{", "--settings is no JSON"),
        ('{"depths": [1, 3], "axes": [true, true]}', "the file lacks network.stages.1.2"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path, settings, words):
    from generalist.convert.backbone import convert

    save_file(official(RMT(**SMALL)), tmp_path / "rmt.safetensors")
    with pytest.raises(UserError, match=words):
        convert(tmp_path / "rmt.safetensors", tmp_path / "out", "rmt", settings)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_described_by_json_and_refuses_what_it_does_not_know(kind):
    assert json.loads(json.dumps(settings_of(kind))) == settings_of(kind)
    stages.register()  # a network may be the body of another
    with torch.device("meta"):
        made = network_class(kind)()
    assert made.channels
    with pytest.raises(UserError, match=f"{kind} has no setting 'nothing_like_it'"):
        StagesConfig(kind, nothing_like_it=1)


def test_a_converted_folder_and_a_described_network_are_a_modalitys_backbone(tmp_path):
    from generalist.convert.backbone import convert
    from generalist.tokenizers_mod.pretrained.backbone import Backbone

    torch.manual_seed(0)
    network = RMT(**SMALL).eval()
    save_file(official(network), tmp_path / "rmt.safetensors")
    convert(tmp_path / "rmt.safetensors", tmp_path / "out", "rmt", '{"axes": [true, false]}')
    pixels = torch.rand(3, 32, 32)
    for backbone in (str(tmp_path / "out"), {"model_type": "stages", "kind": "rmt", **SMALL}):
        picture = Backbone(backbone=backbone, size=32)
        span = picture.span(picture.read(pixels))
        tokens = picture.build(16).eval()
        assert span.grid == (4, 4) and tokens(span.data).shape == (16, 16)
        own = [m for m in tokens.modules() if isinstance(m, RMT)]
        assert len(own) == 1
        same = torch.equal(own[0].stem[0].weight, network.stem[0].weight)
        assert same == isinstance(backbone, str)
