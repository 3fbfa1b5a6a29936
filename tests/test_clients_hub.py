"""The hub's own client against a hub on this machine, and what remote code alone can do, each in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import clients
import pytest
import torch
from local_hub import local_hub

ROOT = Path(__file__).resolve().parent.parent


def fresh(code: str, home: Path, **more: str) -> str:
    """What a new process prints that runs this code with the hub's cache in `home`."""
    # behind everything installed, as a package in site-packages is
    code = f"import sys; sys.path.append({str(ROOT)!r})\n{code}"
    env = {**os.environ, "HF_HOME": str(home), **more}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd="/")
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_a_pushed_model_is_loaded_from_the_hub_by_its_name(folder, tmp_path):
    pushed = f"""
from transformers import AutoModel, AutoProcessor
import generalist
for auto in (AutoModel, AutoProcessor):
    auto.from_pretrained({str(folder)!r}).push_to_hub("somebody/something")
"""
    loaded = """
import torch
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("somebody/something", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("somebody/something", trust_remote_code=True)
candidates = processor.candidates(["a red seven", "a blue nine"])
print("p", *model.rank(processor(text=["some other words"]), candidates)[0].tolist())
"""
    with local_hub() as (address, repositories):
        words = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_nobody", "HF_HUB_DISABLE_XET": "1"}
        fresh(pushed, tmp_path / "one", **words)
        files = repositories["somebody/something"]
        assert {"config.json", "model.safetensors", "generalist_remote.py", "README.md", "tokenizer.json"} <= set(files)
        said = fresh(loaded, tmp_path / "another", **words)
    model, processor = clients.model_and_processor()
    expected = model.rank(processor(text=["some other words"]), processor.candidates(["a red seven", "a blue nine"]))
    found = [float(word) for line in said.splitlines() if line.startswith("p ") for word in line.split()[1:]]
    torch.testing.assert_close(torch.tensor([found]), expected)


def test_pipelines_and_sentence_transformers_run_by_remote_code_alone(folder, tmp_path):
    pytest.importorskip("sentence_transformers", reason="pip install generalist-encoder[clients]")
    code = f"""
import numpy as np
from PIL import Image
from transformers import pipeline
assert "generalist" not in sys.modules
folder, trust = {str(folder)!r}, dict(trust_remote_code=True)
picture = Image.fromarray(np.arange(20 * 7 * 3, dtype=np.uint8).reshape(20, 7, 3))
wave = np.sin(np.arange(3333, dtype=np.float32))
names = ["a red seven", "a blue nine", "some words"]
ranked = pipeline("zero-shot-image-classification", model=folder, **trust)([picture] * 3, candidate_labels=names)
print("image", len(ranked), len(ranked[0]))
ranked = pipeline("zero-shot-audio-classification", model=folder, **trust)(wave, candidate_labels=names)
print("audio", len(ranked), round(sum(one["score"] for one in ranked), 4))
print("tokens", *np.shape(pipeline("feature-extraction", model=folder, **trust)("a red seven"))[::2])
print("pixels", *np.shape(pipeline("image-feature-extraction", model=folder, **trust)(picture)))
written = pipeline("image-text-to-text", model=folder, **trust)(picture, text="a red", max_new_tokens=3)
print("written", written[0]["generated_text"][:5])
from sentence_transformers import SentenceTransformer
encoder = SentenceTransformer(folder, device="cpu", **trust)
first = encoder.encode(names)
encoder.save({str(tmp_path / "saved")!r})
again = SentenceTransformer({str(tmp_path / "saved")!r}, device="cpu", **trust).encode(names)
print("sentences", *first.shape, np.array_equal(first, again))
"""
    said = fresh(code, tmp_path)
    kept = ("image", "audio", "tokens", "pixels", "written", "sentences")
    assert [line for line in said.splitlines() if line.startswith(kept)] == [
        "image 3 3",
        "audio 3 1.0",
        "tokens 1 24",
        "pixels 1 4 24",
        "written a red",
        "sentences 3 24 True",
    ]
