"""`generalist models`: what pretrained weights are on this machine, by their names, without fetching any."""

import json
from importlib.util import find_spec

import torch
from safetensors.torch import save_file

import generalist
from generalist.cli import main


def folder_of(path, config: dict, name: str = "model.safetensors", card: str = "") -> None:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(10)}, path / name)
    if card:
        (path / "README.md").write_text(card)


def test_packages_the_hubs_cache_and_folders_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder_of(
        tmp_path / "hub" / "models--a--b-vit" / "snapshots" / "1", {"model_type": "vit"}, card="---\nlicense: mit\n---"
    )
    folder_of(tmp_path / "mine" / "deep" / "run", {"model_type": "generalist", "modalities": {"image": {}, "text": {}}})
    folder_of(tmp_path / "mine" / "sound", {"model_type": "wav2vec2"}, "pytorch_model.bin")
    (tmp_path / "mine" / "bad").mkdir()
    (tmp_path / "mine" / "bad" / "config.json").write_text("{")
    save_file({}, tmp_path / "mine" / "bad" / "w.safetensors")
    (tmp_path / "mine" / "empty").mkdir()
    assert main(["models", str(tmp_path / "mine"), "--json"]) == 0
    found = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert found["zoo:minilm"]["modality"] == "text" and found["zoo:efficientnet_lite0"]["licence"] == "Apache-2.0"
    for name in ("zoo:minilm", "zoo:efficientnet_lite0"):
        assert found[name]["bytes"] is None or found[name]["bytes"] > 1e7
    starter = found["starter"]
    weights = generalist.path("starter") / "model.safetensors"
    assert (starter["bytes"], starter["licence"], starter["installed"]) == (weights.stat().st_size, "apache-2.0", True)
    assert {"audio", "image", "points", "series", "table", "text"} <= set(starter["modality"].split(", "))
    assert "summary" not in starter["modality"] and starter["about"].startswith("One encoder for audio, image")
    cached = found["hub:a/b-vit"]
    assert (cached["modality"], cached["licence"], cached["about"]) == ("image", "mit", "vit") and cached["bytes"] > 40
    own = found[str(tmp_path / "mine" / "deep" / "run")]
    assert own["modality"] == "image, text" and own["licence"] == "not stated"
    sound = found[str(tmp_path / "mine" / "sound")]
    assert sound["modality"] == "audio" and "pickles" in sound["about"]
    assert "is not JSON" in found[str(tmp_path / "mine" / "bad")]["about"]
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("starter ")]
    (voices,) = [line for line in lines if line.startswith("zoo:resemblyzer ")]
    assert "pip install --no-deps Resemblyzer" in voices or find_spec("resemblyzer") is not None
    assert "8 MB" in line and "apache-2.0" in line and any(line.startswith("zoo:minilm ") for line in lines)
    assert main(["models", str(tmp_path / "nowhere")]) == 2
