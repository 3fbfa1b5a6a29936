"""Folders whose weights are pickles (.bin) alone: every door to weights of others refuses them, and says what to do."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, RTDetrV2Model

from generalist.cli import main
from generalist.convert import hf
from generalist.convert.files import load_folder
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.libraries.weights import BY_TENSOR
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.pretrained.sentence import Sentence
from generalist.tokenizers_mod.pretrained.sequences import PretrainedAudio, PretrainedSeries, PretrainedVideo
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.regions.proposers.base import library_config
from generalist.tokenizers_mod.regions.region import Region
from generalist.train.start.initial import load_initial
from tests.pair_folders import build, tokenizer
from tests.regions import CONVNEXT, RT_DETR, region
from tests.roberta import roberta

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PICTURES = {"image_size": 32, "patch_size": 16}
SERIES = {"num_input_channels": 2, "context_length": 16, "patch_length": 8, "patch_stride": 8, "d_model": 16}
NETWORKS = {
    "bert": TINY | {"vocab_size": 80, "max_position_embeddings": 20},
    "vit": TINY | PICTURES,
    "dinov2": TINY | PICTURES,
    "audio-spectrogram-transformer": TINY | {"num_mel_bins": 32, "max_length": 64},
    "videomae": TINY | PICTURES | {"num_frames": 4},
    "convnext": {key: value for key, value in CONVNEXT.items() if key != "model_type"},
    "patchtst": SERIES | {"num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16},
}


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """A tiny network's folder as older versions of transformers wrote it."""

    def made(kind):
        folder = tmp_path_factory.mktemp(kind)
        if kind == "clip":
            build("clip", folder)
        elif kind == "roberta":
            roberta(folder, ["a", "dog"])
        elif kind == "rt_detr_v2":
            RTDetrV2Model(library_config(kind, RT_DETR, CONVNEXT)).save_pretrained(folder)
        else:
            AutoModel.from_config(AutoConfig.for_model(kind, **NETWORKS[kind])).save_pretrained(folder)
        if kind == "bert":
            tokenizer(folder)
        return as_pickle(folder)

    return made


def as_pickle(folder):
    """A folder's safetensors as pytorch_model.bin."""
    torch.save(load_folder(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def short(modality):
    """Its device half, as a model is made of it."""
    return modality.build(16)


DOORS = {
    "hf, texts": ("bert", hf.build),
    "hf, pictures": ("vit", hf.build),
    "hf, one tower": ("clip", lambda folder: hf.build(folder, "image")),
    "hf, both towers": ("clip", lambda folder: hf.build(folder, "both")),
    "backbone": ("dinov2", lambda folder: short(Backbone(backbone=str(folder)))),
    "frozen backbone": ("dinov2", lambda folder: short(Backbone(backbone=str(folder), frozen=True))),
    "weights of a backbone": ("vit", lambda folder: short(Backbone(backbone="test_vit", size=64, weights=str(folder)))),
    "heard": ("vit", lambda folder: short(Heard(backbone="test_vit", size=64, weights=str(folder)))),
    "regions": ("rt_detr_v2", lambda folder: short(Region(height=96, width=128, checkpoint=str(folder), proposals=5))),
    "backbone of regions": ("convnext", lambda folder: short(region(backbone_weights=str(folder)))),
    "text": ("roberta", lambda folder: short(PretrainedText(encoder=str(folder), max_length=8, positions=8))),
    "sentence": ("bert", lambda folder: Sentence(encoder=str(folder), inner=16).read("a dog")),
    "audio": ("audio-spectrogram-transformer", lambda folder: short(PretrainedAudio(backbone=str(folder)))),
    "video": ("videomae", lambda folder: short(PretrainedVideo(backbone=str(folder)))),
    "series": ("patchtst", lambda folder: short(PretrainedSeries(backbone=str(folder), channels=2))),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_pickle_is_refused_at_every_door(door, pickled):
    kind, through = DOORS[door]
    with pytest.raises(UserError) as told:
        through(pickled(kind))
    said = str(told.value)
    assert "pytorch_model.bin, a pickle" in said and "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)" in said
    assert "\n" not in said


def test_what_the_line_says_mends_it(pickled):
    folder = pickled("bert")
    AutoModel.from_pretrained(folder).save_pretrained(folder)  # which writes safetensors
    assert hf.build(folder)[2].missing == []


@pytest.mark.parametrize("kind", ["hf", "meta-transformer", "backbone"])
def test_the_command_refuses_a_folder_of_pickles(kind, pickled, tmp_path, capsys):
    more = ["--kind", "rmt"] if kind == "backbone" else []
    assert main(["convert", kind, str(pickled("vit")), *more, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "pytorch_model.bin, a pickle" in line and not (tmp_path / "out").exists()


def saved_model(folder):
    """A small model of this project, saved."""
    made = {"summary": {}, "image": {"size": 32, "patch": 16}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = GeneralistModel(GeneralistConfig(**sizes, modalities=made))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", [GeneralistModel, AutoModel])
def test_a_model_of_our_own_is_not_read_out_of_a_pickle_and_the_line_mends_it(kind, tmp_path, monkeypatch):
    model = saved_model(tmp_path)
    as_pickle(tmp_path)
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle") as told:
        kind.from_pretrained(tmp_path)
    assert "\n" not in str(told.value) and str(told.value).endswith(BY_TENSOR)
    monkeypatch.chdir(tmp_path)
    way = BY_TENSOR.replace("FILE", "'pytorch_model.bin'")
    exec(f"import safetensors.torch, torch; {way}")
    again = kind.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_run_does_not_begin_from_pickles(tmp_path):
    model = saved_model(tmp_path)
    load_initial(model, tmp_path)
    as_pickle(tmp_path)
    assert "modalities" in json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        load_initial(model, tmp_path)


@pytest.mark.parametrize(("kind", "name"), [("hf", "hub:nobody/nothing"), ("open-clip", "hf-hub:nobody/nothing")])
def test_a_name_of_the_hub_without_a_network_is_told_at_once(kind, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["convert", kind, name, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "hub:nobody/nothing is not in the Hugging Face cache and HF_HUB_OFFLINE is set" in said and "\n" not in said
