"""transformers' Auto classes load a saved model, whichever of the two packages is imported first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A processor in place of the real one, whose own saving and loading has tests of its own.
PROCESSOR = """
import sys, types
class GeneralistProcessor:
    @classmethod
    def from_pretrained(cls, folder, **kwargs):
        self = cls(); self.folder = folder; return self
fake = types.ModuleType("generalist.hf.processor"); fake.GeneralistProcessor = GeneralistProcessor
sys.modules["generalist.hf.processor"] = fake
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small saved model with the name of a processor beside it."""
    from generalist.hf.model import GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig

    path = tmp_path_factory.mktemp("model")
    config = GeneralistConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20)
    GeneralistModel(config).save_pretrained(path)
    (path / "processor_config.json").write_text(json.dumps({"processor_class": "GeneralistProcessor"}))
    return path


def python(code: str, folder: Path) -> list[str]:
    """Run code in a fresh interpreter with ``folder`` set; its printed words."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = f"{PROCESSOR}\nfolder = {str(folder)!r}\n{code}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd="/")
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


AUTO = "from transformers import AutoModel, AutoConfig, AutoProcessor"
ORDERS = {
    "ours first": f"import generalist\n{AUTO}",
    "theirs first": f"{AUTO}\nimport generalist",
    "one of our modules first": f"import generalist.model.model\n{AUTO}",
    "in the middle": f"from transformers import AutoConfig\nfrom generalist import GeneralistModel\n{AUTO}",
}


@pytest.mark.parametrize("order", ORDERS)
def test_model_config_and_processor_load_in_any_import_order(folder, order):
    code = f"""{ORDERS[order]}
print(type(AutoModel.from_pretrained(folder)).__module__, type(AutoConfig.from_pretrained(folder)).__module__)
print(type(AutoProcessor.from_pretrained(folder)) is GeneralistProcessor)
print(AutoModel.from_config(AutoConfig.from_pretrained(folder)).config.hidden_size)
"""
    assert python(code, folder) == ["generalist.hf.model", "generalist.hf.pretrained.config", "True", "12"]


def test_the_processor_loads_before_anything_else_is_used(folder):
    code = """import generalist
from transformers import AutoProcessor
print(type(AutoProcessor.from_pretrained(folder)) is GeneralistProcessor)"""
    assert python(code, folder) == ["True"]


def test_a_configuration_is_made_by_its_type(folder):
    code = """import generalist
from transformers import AutoConfig
config = AutoConfig.for_model("generalist", hidden_size=24)
print(type(config).__module__, config.hidden_size, isinstance(config, generalist.GeneralistConfig))"""
    assert python(code, folder) == ["generalist.hf.pretrained.config", "24", "True"]


def test_importing_twice_or_reloading_changes_nothing(folder):
    code = """import importlib, sys, generalist
importlib.reload(generalist)
from transformers import AutoModel
importlib.reload(generalist)
print(sum(type(f).__name__ == "_AfterImport" for f in sys.meta_path))
print(type(AutoModel.from_pretrained(folder)).__name__)"""
    assert python(code, folder) == ["1", "GeneralistModel"]


def test_other_models_still_load_their_own_configuration(folder):
    code = """import generalist
from transformers import AutoConfig
print(type(AutoConfig.for_model("bert")).__name__, "generalist.model.model" in sys.modules)"""
    assert python(code, folder) == ["BertConfig", "False"]
