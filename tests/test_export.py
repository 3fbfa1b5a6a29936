"""`generalist export`: programs that say what the model says, at other numbers and sizes than they were traced with."""

import importlib.util
import json

import clients
import pytest
import torch
from torch.nn.functional import normalize

from generalist.cli import main
from generalist.convert.export import STANDARD, Program


def test_a_program_says_what_the_model_says_of_other_inputs(folder, tmp_path, capsys):
    assert main(["export", str(folder), "torch-export", "--out", str(tmp_path), "--modality", "text", "image"]) == 0
    said = capsys.readouterr().out
    about = json.loads((tmp_path / "export.json").read_text())
    assert set(about["programs"]) == {"text", "image"} and said.count("within") == 2
    model, processor = clients.model_and_processor()
    given = {
        "text": processor(text=clients.TEXTS, return_tensors="pt"),
        "image": processor(image=[clients.picture(12, 8, i) for i in range(4)], return_tensors="pt"),
    }
    for name, tensors in given.items():
        program = Program(**about["programs"][name])
        assert program.inputs[0] in STANDARD and program.difference < 1e-4
        loaded = torch.export.load(tmp_path / program.file).module()
        with torch.no_grad():
            expected = normalize(model(**tensors).pooler_output, dim=-1)
            if program.sizes == "any":
                torch.testing.assert_close(loaded(*tensors.values()), expected, atol=1e-5, rtol=0)
    assert about["programs"]["text"]["sizes"] == "any"


@pytest.mark.soak  # half a minute: the exporter
def test_onnx_of_every_modality(folder, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install generalist-encoder[clients]")
    assert main(["export", str(folder), "onnx", "--out", str(tmp_path)]) == 0
    programs = json.loads((tmp_path / "export.json").read_text())["programs"]
    assert set(programs) == {"text", "image", "audio"}
    assert all((tmp_path / one["file"]).is_file() and one["difference"] < 1e-4 for one in programs.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["onxx"], "did you mean 'onnx'"),
        (["torch-export", "--modality", "points"], "cannot be exported"),
        (["torchao"], "pip install torchao"),
    ],
)
def test_what_cannot_be_exported_is_one_line(folder, tmp_path, capsys, words, told, monkeypatch):
    monkeypatch.setattr("generalist.convert.export.find_spec", lambda name: None)
    assert main(["export", str(folder), *words, "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_torchao_writes_a_model_folder_of_int8(folder, tmp_path):
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("pip install torchao")
    from transformers import AutoModel

    assert main(["export", str(folder), "torchao", "--out", str(tmp_path)]) == 0
    model, processor = clients.model_and_processor()
    small = AutoModel.from_pretrained(tmp_path).eval()
    texts = processor(text=clients.TEXTS)
    assert (small.encode(texts) * model.encode(texts)).sum(-1).min() > 0.99
