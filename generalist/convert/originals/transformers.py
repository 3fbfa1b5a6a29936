"""transformers' own models beside those that were made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from generalist.convert import sentence
from generalist.convert.originals.inputs import TEXTS, most_pieces, pixels, raw_of
from generalist.convert.pairs import transformers as pairs
from generalist.convert.pairs.tokenizer import load_tokenizer
from generalist.convert.parity import Compared, difference
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.tokenizers_mod.towers.network import library_features

WORDS = ("bert", "roberta", "xlm-roberta")


def compare(
    checkpoint: Path, options: dict[str, Any], model: GeneralistModel, processor: GeneralistProcessor
) -> list[Compared]:
    behind = sentence.read(checkpoint)
    folder, tower = behind.folder, options.get("tower", "both")
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind in pairs.KINDS and tower == "both":
        return _both(folder, pairs.KINDS[kind], kind, model, processor)
    from transformers import AutoModel

    original = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    if kind in WORDS:
        return [_words(folder, original, behind, model, processor)]
    if tower == "text" or kind == "clip_text_model":
        return [_clip_texts(original, model, processor)]
    shown = pixels(processor.built["image"])
    if kind in ("clip", "siglip"):
        theirs = library_features(original, "image", {"pixel_values": shown})
    else:
        found = original(pixel_values=shown)
        theirs = found.pooler_output if kind.startswith("siglip") else found.last_hidden_state[:, 0]
    return [difference("features of 2 pictures", model.get_image_features(shown).pooler_output, theirs)]


def _clip_texts(original: Any, model: GeneralistModel, processor: GeneralistProcessor) -> Compared:
    import open_clip

    length = most_pieces(processor) + 1
    rows = open_clip.SimpleTokenizer(context_length=length)(TEXTS)
    if hasattr(original, "get_text_features"):
        theirs = library_features(original, "text", {"input_ids": rows})
    else:
        theirs = original(input_ids=rows).pooler_output
    ours = model.get_text_features(**processor(text=TEXTS, return_tensors="pt")).pooler_output
    return difference("features of 3 texts", ours, theirs)


def _words(
    folder: Path, original: Any, behind: sentence.Sentence, model: GeneralistModel, processor: GeneralistProcessor
) -> Compared:
    """The first token, or the mean of all, of what a text encoder makes of the same ids."""
    tokenizer = load_tokenizer(folder)
    pooling = behind.settings.get("readout", "asked")
    if pooling not in ("asked", "mean_all") or behind.tensors:
        raise UserError(f"the modules behind this encoder ({pooling}) are run by sentence-transformers alone")
    tensors = tokenizer(TEXTS, padding=True, truncation=True, max_length=behind.length or None, return_tensors="pt")
    hidden = original(**tensors).last_hidden_state
    real = tensors["attention_mask"].unsqueeze(-1)
    theirs = hidden[:, 0] if pooling == "asked" else (hidden * real).sum(1) / real.sum(1)
    ours = model.get_text_features(**processor(text=TEXTS, return_tensors="pt")).pooler_output
    return difference("features of 3 texts", ours, theirs)


def _both(folder: Path, side: str, kind: str, model: GeneralistModel, processor: GeneralistProcessor) -> list[Compared]:
    raw = raw_of(side, processor.built[side])
    tensors = processor(**{side: raw, "text": TEXTS}, return_tensors="pt")
    original = pairs.library_model(folder)
    padding = {"padding": "max_length", "max_length": 64} if kind.startswith("siglip") else {"padding": True}
    tokenizer = load_tokenizer(folder)
    words = tokenizer(TEXTS, return_tensors="pt", truncation=True, **padding)
    words = {key: value for key, value in words.items() if key in ("input_ids", "attention_mask")}
    seen = _seen(folder, side, raw, processor)
    own = normalize(library_features(original, side, seen), dim=-1)
    text = normalize(library_features(original, "text", words), dim=-1)
    law = dict(original.named_parameters(recurse=False))
    logits = own @ text.T * law["logit_scale_a" if "logit_scale_a" in law else "logit_scale"].exp()
    logits = logits + law["logit_bias"] if "logit_bias" in law else logits
    found = model(**tensors)
    return [
        difference(f"features of 2 {side} samples", found.embeds, own),
        difference("features of 3 texts", found.text_embeds, text),
        difference(f"logits of 2 {side} samples and 3 texts", found.logits, logits),
    ]


def _seen(folder: Path, side: str, raw: list[Any], processor: GeneralistProcessor) -> dict[str, Tensor]:
    """What the library's own preprocessing makes of the samples."""
    from PIL import Image
    from transformers import AutoFeatureExtractor, AutoImageProcessor

    if side == "audio":
        extract = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        found = [extract(wave, sampling_rate=rate, return_tensors="pt") for wave, rate in raw]
        names: tuple[str, ...] = ("input_features", "is_longer")
    else:
        process = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        if side == "video":
            frames: int = processor.built[side].frames  # type: ignore[attr-defined]
            places = [np.linspace(0, len(clip) - 1, frames).round().astype(int) for clip in raw]
            shown = [[Image.fromarray(clip[i]) for i in own] for clip, own in zip(raw, places, strict=True)]
            made = [process(one, return_tensors="pt")["pixel_values"] for one in shown]
            return {"pixel_values_videos": torch.stack(made)}
        found = [process([Image.fromarray(one)], return_tensors="pt") for one in raw]
        names = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    return {key: torch.cat([torch.as_tensor(one[key]) for one in found]) for key in names if key in found[0]}
