"""The first stages of a pretrained picture network, a token a picture: norms folded, weights where they are found."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.tokenizer import bare
from generalist.tokenizers_mod.pretrained.stages.folded import folded
from generalist.tokenizers_mod.pretrained.stages.stages import Stages

SMALL = {"network": "test_efficientnet", "stages": 2, "size": 32, "patch": 32}


def used(net: nn.Module) -> nn.Module:
    """The network with norms that have seen something."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
            nn.init.normal_(module.bias, std=0.1)
    return net


def test_folded_stages_compute_what_they_were_trained_to_and_keep_no_statistics():
    net = used(timm.create_model("test_efficientnet")).eval()
    pixels = torch.randn(3, 3, 32, 32)
    parts = [net.conv_stem, net.bn1, *list(net.blocks)[:2]]
    with torch.no_grad():
        before = nn.Sequential(*parts)(pixels)
        stages = folded(parts).train()
        after = stages(pixels)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    assert not [m for m in stages.modules() if isinstance(m, nn.BatchNorm2d)] and not list(stages.buffers())


def test_the_weights_are_those_of_the_file_and_are_left_alone_where_others_follow(tmp_path):
    net = used(timm.create_model("test_efficientnet"))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    picture = Stages(**SMALL, weights=str(tmp_path / "net.pth"))
    stem = picture.build(8).projection
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = nn.Sequential(net.eval().conv_stem, net.bn1, *list(net.blocks)[:2])(pixels)
        torch.testing.assert_close(stem.stages(pixels), expected, atol=1e-5, rtol=1e-4)
    (tmp_path / "net.pth").unlink()
    with bare():  # a saved model holds its own
        picture.build(8)
    with pytest.raises(UserError, match="no weights at"):
        picture.build(8)
    assert "RANDOM" in Stages(**SMALL).told()[0] and "net.pth" in picture.told()[0]


def test_a_picture_is_one_token_seen_larger_than_it_is_read():
    torch.manual_seed(0)
    small, large = Stages(**SMALL), Stages(**SMALL, input_size=64)
    raw = (np.random.default_rng(0).random((20, 30, 3)) * 255).astype(np.uint8)
    span = large.span(large.read(raw))
    assert span.length == 1 and span.data["patch"].shape == (1, 3 * 32 * 32)
    cells = [picture.build(8).projection.norm.weight.numel() for picture in (small, large)]
    assert cells[1] == 4 * cells[0]
    assert large.build(8)(span.data).shape == (1, 8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": 0}, "stages is 0"),
        ({"input_size": -1}, "input_size -1"),
        ({"stem": 4}, "no stem"),
        ({"channels": 1}, "channels=3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Stages(**SMALL | settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"stages": 9}, "stages is 9; the network has"), ({"network": "test_vit"}, "no chain"), ({"network": "x"}, "'x'")],
)
def test_networks_that_cannot_be_cut_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Stages(**SMALL | settings).build(8)
