"""A small model folder with six modalities, as a training run would leave it; what the client tests load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

TEXTS = ["a red seven on a table", "a blue nine", "some other words", "this is a photo of one thing", "a sound of two"]
ROWS = [{"age": 31.0 + i, "job": job} for i, job in enumerate(("cook", "smith", "cook", "clerk", "smith"))]


def modalities() -> dict:
    from generalist.tokenizers_mod.audio.audio import Audio
    from generalist.tokenizers_mod.geometry.points import Points
    from generalist.tokenizers_mod.numbers.series import Series
    from generalist.tokenizers_mod.tables.table import Table
    from generalist.tokenizers_mod.text.summary import Summary
    from generalist.tokenizers_mod.text.text import Text
    from generalist.tokenizers_mod.vision.image import Image

    text = Text(tokenizer="", learn=300, max_length=40, positions=40)
    text.learn_texts(TEXTS)
    table = Table()
    table.learn_rows("people", ROWS)
    return {
        "summary": Summary(),
        "text": text,
        "image": Image(size=12, patch=4, channels=3),
        "audio": Audio(rate=8000, mels=20, patch=[20, 4], stride=[20, 4]),
        "points": Points(groups=5, size=3, hidden=8),
        "series": Series(patch=7),
        "table": table,
    }


def model_and_processor(**config):
    """A fresh model (width 24, two layers, three heads) and its processor."""
    from generalist.hf.model import GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.hf.processor import GeneralistProcessor
    from generalist.tokenizers_mod.base.modalities import modality_settings

    built = modalities()
    settings = modality_settings(built)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    torch.manual_seed(0)
    model = GeneralistModel(GeneralistConfig(modalities=settings, **{**sizes, **config})).eval()
    processor = GeneralistProcessor(tokenizer=built["text"].hf_tokenizer(), modalities=settings)
    return model, processor


def save(folder: Path, **config):
    model, processor = model_and_processor(**config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """float32 [samples]."""
    return np.random.default_rng(seed).normal(size=samples).astype(np.float32) / 4
