"""What a frozen encoder made of a sample is kept on disk: once made, found by content and weights, bounded, checked."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.train.initial import load_initial


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(3)
    save_file(Backbone(backbone="test_efficientnet", size=64).build(16).encoder.net.state_dict(), path)
    return str(path)


def frozen(weights: str, **settings) -> Backbone:
    return Backbone(backbone="test_efficientnet", size=64, weights=weights, frozen=True, **settings)


def picture(seed: int, shape: tuple[int, int] = (40, 50)) -> bytes:
    """An encoded picture."""
    made = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)).save(made, "PNG")
    return made.getvalue()


def batch(modality: Backbone, raws: list) -> dict[str, torch.Tensor]:
    return pack([[modality.span(modality.read(raw))] for raw in raws]).data["image"]


@pytest.mark.parametrize("maps", ["last", "all", "embedding"])
def test_features_are_those_of_the_network_and_made_once(weights, cache, tmp_path, maps):
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(picture(i))
    modality, plain = frozen(weights, maps=maps), frozen(weights, maps=maps, features=0)
    torch.manual_seed(0)
    module = modality.build(16)
    runs = []
    module.encoder.register_forward_hook(lambda m, given, out: runs.append(len(given[0])))
    with torch.no_grad():
        first = module(batch(modality, files))
        assert runs == [1, 1, 1] and len(list(cache.rglob("*"))) > 3
        assert torch.equal(module(batch(modality, files)), first) and len(runs) == 3
        again = frozen(weights, maps=maps)  # another process
        assert torch.equal(module(batch(again, [*files[::-1]])), first.view(3, -1, 16).flip(0).reshape(-1, 16))
        assert len(runs) == 3
        torch.testing.assert_close(module(batch(plain, files)), first, atol=1e-5, rtol=1e-4)
        # known and new ones in one batch
        (tmp_path / "new.png").write_bytes(picture(9))
        mixed = module(batch(modality, [tmp_path / "new.png", files[1]])).view(2, -1, 16)
        assert torch.equal(mixed[1], first.view(3, -1, 16)[1]) and runs[-2:] == [3, 1]


def test_a_known_picture_is_not_decoded(weights, tmp_path, monkeypatch):
    from generalist.tokenizers_mod.pretrained import backbone

    path = tmp_path / "a.png"
    path.write_bytes(picture(0))
    modality = frozen(weights)
    modality.build(16)(batch(modality, [path]))
    monkeypatch.setattr(backbone, "read_image", lambda *a, **k: pytest.fail("decoded"))
    assert batch(modality, [path])["known"].tolist() == [True]


def test_other_weights_pictures_sizes_and_maps_find_nothing_of_each_other(weights, tmp_path):
    state = load_file(weights)
    save_file(state | {"conv_stem.weight": state["conv_stem.weight"] + 1}, tmp_path / "other.safetensors")
    arrays = [np.random.default_rng(i).random((30, 30, 3)) for i in range(2)]
    made = frozen(weights)
    made.build(16)(batch(made, arrays[:1]))
    assert batch(made, arrays)["known"].tolist() == [True, False]
    for other in (
        frozen(str(tmp_path / "other.safetensors")),
        frozen(weights, maps="all"),
        frozen(weights, aspect=True),
        frozen(weights, background=0.0),
        Backbone(backbone="test_efficientnet", size=96, weights=weights, frozen=True),
    ):
        assert batch(other, arrays[:1])["known"].tolist() == [False]


def test_pictures_of_several_sizes_are_kept_as_well(weights):
    modality = frozen(weights, aspect=True)
    module = modality.build(16)
    raws = [np.random.default_rng(i).random(shape) for i, shape in enumerate([(64, 32), (64, 64), (32, 64)])]
    first = module(batch(modality, raws))
    found = batch(modality, raws)
    assert found["known"].all() and torch.equal(module(found), first) and len(first) == 2 + 4 + 2


def test_gradients_reach_the_linear_map_and_augmented_pictures_are_not_kept(weights):
    modality = frozen(weights, augment="crop")
    raw = np.random.default_rng(0).random((80, 80, 3))
    assert "key" not in modality.span(modality.read(raw), torch.Generator()).data
    module = modality.build(16)
    module(batch(modality, [raw])).sum().backward()
    assert {n for n, p in module.named_parameters() if p.grad is not None} == {
        "projections.0.weight",
        "projections.0.bias",
    }


def test_weights_that_are_not_those_of_the_features_are_refused(weights):
    modality = frozen(weights)
    module = modality.build(16)
    data = batch(modality, [np.ones((30, 30))])
    module(data)
    state = module.state_dict()
    module.load_state_dict(state | {"encoder.net.conv_stem.weight": state["encoder.net.conv_stem.weight"] + 1})
    with pytest.raises(UserError, match="not those of"):
        module(data)


def test_a_damaged_file_is_made_anew_and_the_folder_stays_in_its_bounds(weights, cache):
    modality = frozen(weights)
    module = modality.build(16)
    raw = np.ones((30, 30))
    first = module(batch(modality, [raw]))
    (file,) = [p for p in cache.rglob("*") if p.is_file()]
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(module(batch(modality, [raw])), first)
    assert batch(modality, [raw])["known"].tolist() == [True]
    small = frozen(weights, features=1e-5)  # ten thousand bytes
    module = small.build(16)
    for i in range(20):
        module(batch(small, [np.random.default_rng(i).random((20, 20))]))
    assert small.store.cache.size() <= 1e4


def small_zoo(weights: str, monkeypatch) -> None:
    """The tests' weights as a package of the zoo."""
    from pathlib import Path

    from generalist.tokenizers_mod.libraries import zoo

    monkeypatch.setattr(zoo.Entry, "path", lambda self: Path(weights))
    made = zoo.Entry("net", "torch", "torch", "", "image", "MIT", "tests", backbone="test_efficientnet")
    monkeypatch.setitem(zoo.ZOO, "net", made)


def model_of(modality: Backbone, **settings) -> GeneralistModel:
    own = {**modality.settings(), "class": "generalist.tokenizers_mod.pretrained.backbone:Backbone"}
    modalities = {"summary": {}, "image": own}
    return GeneralistModel(
        GeneralistConfig(width=16, layers=1, heads=2, hidden=16, modalities=modalities, **settings)
    ).eval()


@pytest.mark.parametrize("frozen_weights", ["refer", "include"])
def test_a_saved_model_names_a_packages_frozen_weights_or_holds_them(weights, tmp_path, monkeypatch, frozen_weights):
    small_zoo(weights, monkeypatch)
    modality = Backbone(backbone="zoo:net", size=64, frozen=True)
    model = model_of(modality, frozen=frozen_weights)
    model.save_pretrained(tmp_path / "model")
    held = {k for k in load_file(tmp_path / "model" / "model.safetensors") if k.startswith("tokenizers.image.encoder.")}
    said = json.loads((tmp_path / "model" / "config.json").read_text())["referred"]
    assert bool(held) == (frozen_weights == "include") and bool(said) != bool(held)
    packed = pack([[modality.span(torch.rand(3, 30, 40)).ask([0])]])
    expected = model.features(packed)
    again = GeneralistModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(again.features(packed), expected, atol=1e-6, rtol=1e-6)
    assert not any(p.requires_grad for p in again.tokenizers["image"].encoder.parameters())
    assert again.tokenizers["image"].projections[0].weight.requires_grad
    assert AutoModel.from_pretrained(tmp_path / "model", dtype=torch.bfloat16).dtype == torch.bfloat16
    fresh = model_of(modality)  # a run that starts from it
    load_initial(fresh, tmp_path / "model")
    torch.testing.assert_close(fresh.features(packed), expected, atol=1e-6, rtol=1e-6)
    other = load_file(weights)
    other["conv_stem.weight"] += 1
    save_file(other, tmp_path / "other.safetensors")
    small_zoo(str(tmp_path / "other.safetensors"), monkeypatch)
    if held:
        GeneralistModel.from_pretrained(tmp_path / "model")
    else:
        with pytest.raises(UserError, match=r"saved with the weights zoo:net of torch .*install that version"):
            GeneralistModel.from_pretrained(tmp_path / "model")


def test_weights_that_changed_are_held(weights, tmp_path, monkeypatch):
    small_zoo(weights, monkeypatch)
    model = model_of(Backbone(backbone="zoo:net", size=64, frozen=True))
    with torch.no_grad():
        model.tokenizers["image"].encoder.net.conv_stem.weight += 1
    model.save_pretrained(tmp_path)
    again = GeneralistModel.from_pretrained(tmp_path).state_dict()
    assert model.config.referred == {}
    assert all(torch.equal(v, again[k]) for k, v in model.state_dict().items())


def test_buffers_that_are_not_saved_are_made_anew(tmp_path):
    """Swin's indices of relative positions: what is no parameter and in no file would be whatever memory held."""
    swin = {"model_type": "timm_backbone", "backbone": "swin_tiny_patch4_window7_224"}
    small = {"embed_dim": 24, "depths": [1, 1], "num_heads": [1, 2]}
    modality = Backbone(backbone=swin | small, size=64)
    model = model_of(modality)
    model.save_pretrained(tmp_path)
    again = GeneralistModel.from_pretrained(tmp_path)
    packed = pack([[modality.span(torch.rand(3, 30, 40)).ask([0])]])
    torch.testing.assert_close(again.features(packed), model.features(packed), atol=1e-5, rtol=1e-5)
