"""The plain model and processor of a folder are transformers' own to the last bit, and need no transformers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import clients
import pytest
import torch
from PIL import Image

from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.predict import load_for_asking, load_model
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.hf.saved import read_for_asking, read_model
from generalist.model.config import ModelConfig
from generalist.model.folder.read import read_plain
from generalist.model.folder.stored import as_int8
from generalist.model.model import PackedModel
from generalist.tasks.kinds.classify import Classify

ROOT = Path(__file__).resolve().parent.parent
# what an answer in words about a picture needs none of
HEAVY = ["transformers", "torch._dynamo", "torch._inductor", "torchvision", "scipy", "sklearn", "pandas", "datasets"]
HEAVY += ["deepspeed", "accelerate", "sympy", "pyarrow", "huggingface_hub", "timm", "open_clip", "matplotlib"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "model"
    model, processor = clients.model_and_processor(scales=["classify"])
    processor.tasks = {"what": Classify(name="what", inputs={"image": "picture"})}
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def same(plain: PackedModel, full: GeneralistModel) -> None:
    for own, other in (
        (plain.state_dict(), full.state_dict()),
        (dict(plain.named_buffers()), dict(full.named_buffers())),
    ):
        assert list(own) == list(other)
        assert all(own[name].dtype == other[name].dtype and torch.equal(own[name], other[name]) for name in own)
    assert not any(module.training for module in plain.modules())


def test_the_plain_classes_hold_and_say_the_same(home):
    (plain, processor), (full, other) = load_for_asking(home), load_model(home)
    assert type(plain) is PackedModel and type(full) is GeneralistModel
    same(plain, full)
    raw = {"image": [clients.picture(12, 8)], "table": [clients.ROWS[0]]}
    names = ["a red seven", "a blue nine"]
    found = plain.rank(processor(**raw), processor.candidates(names), "classify")
    assert torch.equal(found, full.rank(other(**raw), other.candidates(names), "classify"))
    assert str(plain.name_or_path) == str(home)


def test_a_fresh_plain_model_draws_the_weights_of_the_other():
    settings = {
        "modalities": {"summary": {}, "text": {}, "image": {}},
        "scales": ["a", "b"],
        "biases": ["a"],
        "layers": 1,
    }
    torch.manual_seed(0)
    plain = PackedModel(ModelConfig(**settings)).state_dict()
    torch.manual_seed(0)
    full = GeneralistModel(GeneralistConfig(**settings)).state_dict()
    assert list(plain) == list(full) and all(torch.equal(plain[name], full[name]) for name in plain)


def test_weights_in_half_and_as_int8_are_read_as_by_transformers(home, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(home, tmp_path / "small"))
    state = load_file(folder / "model.safetensors")
    small = {k: v for name, value in state.items() for k, v in as_int8(name, value).items()}
    assert len(small) > len(state)
    save_file(small, folder / "model.safetensors", metadata={"format": "pt"})
    plain, full = read_plain(folder), read_model(folder)[0]
    assert plain is not None
    same(plain[0], full)
    state = {name: value.bfloat16() for name, value in state.items()}  # as shipped models are stored
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    plain, full = read_plain(folder), read_model(folder)[0]
    assert plain is not None and next(plain[0].encoder.parameters()).dtype == torch.float32
    same(plain[0], full)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert read_plain(folder) is None  # what is cast and what is not, transformers decides


def changed_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = config.pop("width")
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_with_earlier_names_is_read_by_the_other_way(home, tmp_path):
    folder = Path(shutil.copytree(home, tmp_path / "earlier"))
    changed_config(folder)
    assert read_plain(folder) is None
    found, processor = read_for_asking(folder)
    assert isinstance(found, GeneralistModel) and isinstance(processor, GeneralistProcessor)
    plain, _ = load_for_asking(home)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), plain.parameters(), strict=True))


def test_a_damaged_folder_is_one_line(home, tmp_path):
    folder = Path(shutil.copytree(home, tmp_path / "damaged"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        read_for_asking(folder)


def test_an_answer_imports_nothing_heavy(home, tmp_path):
    Image.fromarray(clients.picture(12, 8)).save(tmp_path / "a.png")
    words = ["predict", str(home), "--image", str(tmp_path / "a.png"), "--candidates", "cat", "dog"]
    code = (
        f"import sys; from generalist.cli import main; code = main({words!r}); "
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd="/")
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 3  # two answers stood before it
