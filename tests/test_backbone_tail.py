"""A backbone whose last stages learn: the whole network's numbers, a front that stays and runs once a picture."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard

NETS = {"test_efficientnet": 2, "test_convnext": 1}
VECTOR = {"size": 64, "maps": "embedding"}


@pytest.fixture(scope="module", params=NETS)
def tail(request, tmp_path_factory):
    """(settings of a network with weights, its tail)."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(Backbone(backbone=request.param, **VECTOR).build(16).encoder.net.state_dict(), file)
    return {"backbone": request.param, "weights": str(file), **VECTOR}, NETS[request.param]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))


def pictures(count=3):
    return list(np.random.default_rng(0).random((count, 40, 50, 3)))


def batch(modality, raws, rng=None):
    spans = [modality.span(modality.read(raw), rng) for raw in raws]
    return {key: torch.cat([s.data[key] for s in spans]) for key in spans[0].data}


def values(parts):
    """Parameters and statistics."""
    return [value for part in parts for value in part.state_dict().values()]


def test_the_two_halves_are_the_network_before_and_after_the_front_was_kept(tail, folder):
    settings, stages = tail
    modality = Backbone(**settings, tail=stages)
    module = modality.build(16).eval()
    whole = Backbone(**settings).build(16).eval()
    whole.load_state_dict(module.state_dict())
    plain = Backbone(**settings)
    with torch.no_grad():
        expected = whole(batch(plain, pictures()))
        for known in (False, True):
            data = batch(modality, pictures())
            assert data["known"].tolist() == [known] * 3
            torch.testing.assert_close(module(data), expected, atol=1e-5, rtol=1e-4)


def test_the_tail_alone_learns_and_the_front_runs_once_a_picture(tail, folder, monkeypatch):
    settings, stages = tail
    modality = Backbone(**settings, tail=stages, augment="flip")
    module = modality.build(16).train()
    front, rest = module.halves()
    runs = []
    front[0].register_forward_hook(lambda *_: runs.append(1))
    stays, moves = ([value.clone() for value in values(parts)] for parts in (front, rest))
    learns = [value for value in module.parameters() if value.requires_grad]
    assert learns and not any(value.requires_grad for part in front for value in part.parameters())
    optimizer = torch.optim.SGD(learns, 0.1)
    for seed in range(8):  # all pictures were met as they are and mirrored after some
        out = module(batch(modality, pictures(), torch.Generator().manual_seed(seed)))
        optimizer.zero_grad()
        out.square().sum().backward()
        optimizer.step()
    assert len(runs) <= 6  # three pictures, two ways each
    count = len(runs)
    for seed in range(8):
        module(batch(modality, pictures(), torch.Generator().manual_seed(seed)))
    assert len(runs) == count
    assert all(torch.equal(old, new) for old, new in zip(stays, values(front), strict=True))
    assert any(not torch.equal(old, new) for old, new in zip(moves, values(rest), strict=True))


def test_a_mirrored_picture_has_features_of_its_own(tail, folder):
    settings, stages = tail
    modality = Backbone(**settings, tail=stages, augment="flip")
    module = modality.build(16).eval()
    raw = pictures(1)[0]
    seen = modality.read(raw)
    assert seen.flipped().key != seen.key and seen.flipped().flipped().mirrored is False
    with torch.no_grad():
        ways = {round(float(module(batch(modality, [raw], torch.Generator().manual_seed(seed))).sum()), 4)
                for seed in range(8)}  # fmt: skip
        turned = module(batch(Backbone(**settings, tail=stages), [np.ascontiguousarray(raw[:, ::-1])])).sum()
        own = module(batch(modality, [raw])).sum()  # outside training as it is
    assert ways == {round(float(turned), 4), round(float(own), 4)}


def test_a_saved_model_holds_the_tail_that_learnt(tail, folder, tmp_path):
    settings, stages = tail
    modality = Backbone(**settings, tail=stages)
    made = {"summary": {}, "image": {**modality.settings(), "class": "backbone"}}
    model = GeneralistModel(GeneralistConfig(hidden_size=16, num_hidden_layers=0, num_attention_heads=1,
                                             readout="mean", modalities=made)).eval()  # fmt: skip
    with torch.no_grad():
        for part in model.tokenizers["image"].halves()[1]:
            for value in part.parameters():
                value.add_(0.05)
        pixels = torch.randn(2, 3, 64, 64)
        expected = model.get_image_features(pixel_values=pixels).pooler_output
        model.save_pretrained(tmp_path / "saved")
        again = GeneralistModel.from_pretrained(tmp_path / "saved").eval()
        torch.testing.assert_close(again.get_image_features(pixel_values=pixels).pooler_output, expected)


def test_sounds_have_a_tail_too(folder):
    sound = Heard(backbone="test_efficientnet", **VECTOR, tail=1)
    assert sound.build(16)(batch(sound, [(np.ones(8000), 8000)])).shape == (1, 16)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backbone": "test_vit", **VECTOR, "tail": 1}, "cuts a network that is no chain"),
        ({"backbone": "test_resnet", **VECTOR, "tail": 1}, "is for networks of stages in a row"),
        ({"backbone": "test_efficientnet", **VECTOR, "tail": 40}, "the network has"),
        ({"backbone": "test_efficientnet", **VECTOR, "tail": -1}, "tail is -1"),
        ({"backbone": "test_efficientnet", **VECTOR, "tail": 1, "frozen": True}, "neither with frozen"),
        ({"backbone": "test_efficientnet", "size": 64, "tail": 1}, 'goes with maps="embedding"'),
    ],
)
def test_a_tail_that_cannot_be_is_one_line(settings, said):
    with pytest.raises(UserError) as told:
        Backbone(**settings).build(16)
    assert said in str(told.value) and "\n" not in str(told.value)
