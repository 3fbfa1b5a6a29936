"""The processor within `datasets`: rows that `map` keeps, found again by their hash; what a batch is beside a list."""

import subprocess
import sys
from pathlib import Path

import clients
import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def processor(folder):
    import generalist  # noqa: F401

    return AutoProcessor.from_pretrained(folder)


def test_map_keeps_the_padded_arrays_without_return_tensors(folder, processor):
    from transformers import AutoModel

    rows = Dataset.from_dict({"said": clients.TEXTS, "seen": [clients.picture(12, 12, i).tolist() for i in range(5)]})

    def made(batch: dict) -> dict:
        return processor(text=batch["said"], image=[np.array(one, dtype=np.uint8) for one in batch["seen"]])

    kept = rows.map(made, batched=True, batch_size=5, remove_columns=rows.column_names).with_format("torch")
    assert set(kept.column_names) == {"input_ids", "attention_mask", "pixel_values"}
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(**{name: kept[:5][name] for name in ("input_ids", "attention_mask")}).pooler_output
        expected = model(**processor(text=clients.TEXTS, return_tensors="pt")).pooler_output
    torch.testing.assert_close(found, expected)
    one = rows.map(lambda row: processor(text=row["said"]))
    assert np.array_equal(one[0]["input_ids"], processor(text=clients.TEXTS[0], return_tensors="np")["input_ids"])


def test_a_batch_is_the_sequences_and_by_name_their_arrays(processor):
    batch = processor(text=clients.TEXTS[:2])
    assert isinstance(batch, list) and [len(sequence) for sequence in batch] == [2, 2]
    assert batch[0][1].modality == "text"
    expected = processor(text=clients.TEXTS[:2], return_tensors="np")
    assert dict(batch).keys() == expected.keys()
    assert all(np.array_equal(batch[name], expected[name]) for name in expected)


FACES = {
    "processor": (AutoProcessor, lambda one: one(text=["a red seven"], image=[clients.picture(12, 8)])["input_ids"]),
    "tokenizer": (AutoTokenizer, lambda one: one(["a red seven", "a"], padding=True, truncation=True, max_length=3)),
    "pictures": (AutoImageProcessor, lambda one: one(clients.picture(12, 8))),
}


@pytest.mark.parametrize("face", FACES)
def test_the_hash_is_the_same_after_a_call_and_in_another_process(folder, face):
    auto, call = FACES[face]
    found = auto.from_pretrained(folder)
    before = Hasher.hash(found)
    call(found)
    if face == "processor":
        found.candidates(["a", "b"])
        assert found.tasks == {}
    assert Hasher.hash(found) == before == Hasher.hash(auto.from_pretrained(folder))
    code = f"""
import sys; sys.path.append({str(ROOT)!r})
import generalist, transformers
from datasets.fingerprint import Hasher
print("hash", Hasher.hash(transformers.{auto.__name__}.from_pretrained({str(folder)!r})))
"""
    if face == "processor":  # one process is enough to see it
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
        assert f"hash {before}" in run.stdout, run.stderr[-2000:]


def test_other_settings_have_another_hash(folder, processor):
    other = AutoProcessor.from_pretrained(folder)
    other.modalities["image"]["size"] = 24
    assert Hasher.hash(other) != Hasher.hash(processor)
