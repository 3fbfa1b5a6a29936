"""transformers' own common tests, from the source distribution of the installed version, run on this model.

The distribution is fetched with pip when the test runs and never kept. It lacks four helper modules; the stubs in
their place switch off the export and generation tests (export is tested in test_clients_tools.py, generation in
test_clients_writing.py).
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin: pass",
    "generation/test_utils.py": "class GenerationTesterMixin: pass",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}",
    "../utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, *rest): return url",  # needs a network
}

# Every reason to skip that may occur, and why it is right.
EXPLAINED = {
    "test requires": "a GPU, an accelerator or a package that this machine lacks",
    "test is slow": "runs with RUN_SLOW only",
    "_keep_in_fp32_modules": "no module asks to stay in float32",
    "does not support SDPA": "asks for a class inside the model with a switch of its own; ours is one place for all",
    "does not support grouped_mm": "no experts in this configuration",
    "No conversion found": "no weights of an older layout to convert",
    "Cannot capture hidden states": "hidden states come from the encoder's loop, not from hooks on classes",
    "No usage of the `capture_outputs`": "the same",
    "Do not take a cache": "an encoder has no cache of keys",
    "TP plan": "parallelism is applied from outside",
    "position embeddings": "positions are the tokenizers'",
    "sliding window": "attention sees everything",
    "composite": "one encoder, no sub-models",
    "subconfigs": "the same",
    "training tests": "no loss on one modality alone; training is tested in test_clients_transformers.py",
    "language modeling head": "captions are ranked by the law, not by a head",
    "Not a prioritized model": "transformers' own list",
    "inputs_embeds": "texts come as ids",
    "base_model_class": "the model is its own base",
    "output_router_logits": "no experts in this configuration",
    "sparse experts": "the same",
    "test_resize_embeddings": "the vocabulary is part of the configuration",
    "first argument is the packed batch": "said in hf_common.py",
    "are views": "said in hf_common.py",
    "as many hidden states as words": "said in hf_common.py",
    "which belongs to texts": "said in hf_common.py",
    "looks for a layer of transformers' own class": "said in hf_common.py",
    "asks for three modalities at once": "said in hf_common.py",
    "attribute not present": "the one component is the tokenizer: other inputs are read by the model's modalities",
    "attribute(s), test requires multimodal processor": "the same",
    "support images with text": "the same",
    "has no chat template": "no chat model",
    "_get_num_multimodal_tokens": "no picture stands for tokens inside a text",
    "backends": "one code, without torchvision, serves both backends",
    "torchvision backend": "the same",
    "dict size or list image_mean": "size and mean are those of the modality",
    "No validation found": "settings are checked where a modality is built, inputs where they are read",
}


@pytest.fixture(scope="module")
def tests(tmp_path_factory) -> Path:
    """The distribution's tests with ours beside them."""
    home = tmp_path_factory.mktemp("transformers")
    version = importlib.metadata.version("transformers")
    fetch = [sys.executable, "-m", "pip", "download", f"transformers=={version}", "--no-deps", "--no-build-isolation"]
    run = subprocess.run([*fetch, "--no-binary", ":all:", "-q", "-d", str(home)], capture_output=True, text=True)
    found = list(home.glob("transformers-*.tar.gz"))
    if run.returncode or not found:
        pytest.skip(f"the source distribution of transformers {version} cannot be fetched: {run.stderr[-200:]}")
    with tarfile.open(found[0]) as archive:
        inside = [m for m in archive.getmembers() if m.name.split("/")[1:2] == ["tests"]]
        archive.extractall(home, inside, filter="data")
    tests = next(home.glob("transformers-*/tests"))
    for name, text in STUBS.items():
        (tests / name).parent.mkdir(exist_ok=True)
        (tests / name).write_text(text)
    ours = tests / "models" / "generalist"
    ours.mkdir(parents=True)
    for source, target in (("hf_common", "test_modeling_generalist"), ("hf_processors", "test_processing_generalist")):
        code = (HERE / f"{source}.py").read_text(encoding="utf-8").replace("(0, HERE)", f"(0, {str(HERE)!r})")
        (ours / f"{target}.py").write_text(code, encoding="utf-8")
    for folder in {tests, tests / "models", ours, *((tests / name).parent for name in STUBS)}:
        (folder / "__init__.py").touch()
    return tests


def run(tests: Path, report: Path, *more: str) -> ElementTree.Element:
    """The suite's element of what pytest reports of these tests; no failure, every skip explained."""
    words = ["-q", "-p", "no:cacheprovider", "--timeout", "300", f"--junitxml={report}", str(tests / "models"), *more]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=tests.parent, env=env, capture_output=True, text=True
    )
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0", done.stdout[-3000:]
    reasons = {skip.attrib["message"] for skip in suite.iter("skipped")}
    unexplained = [r for r in reasons if not any(re.search(re.escape(known), r) for known in EXPLAINED)]
    assert not unexplained, unexplained
    return suite


@pytest.mark.soak  # minutes, and it fetches from the package index
def test_transformers_common_tests_pass_and_every_skip_is_explained(tests, tmp_path):
    pytest.importorskip("parameterized", reason="pip install generalist-encoder[test]")
    suite = run(tests, tmp_path / "report.xml")
    assert int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) > 400


def test_a_head_passes_what_transformers_asks_of_training_saving_and_hidden_states(tests, tmp_path):
    """The short form: where the distribution cannot be fetched it is skipped."""
    pytest.importorskip("parameterized", reason="pip install generalist-encoder[test]")
    chosen = "ImageHeadTest and (test_training or test_save_load or test_hidden_states)"
    suite = run(tests, tmp_path / "report.xml", "-k", chosen)
    assert int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) >= 4
