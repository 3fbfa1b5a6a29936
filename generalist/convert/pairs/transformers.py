"""Whole contrastive models of transformers: a folder with config.json, model.safetensors, a tokenizer and what
prepares pictures or sounds.

CLIP and its kin      image, text     logits = cos exp(s)
SigLIP, SigLIP 2      image, text     logits = cos exp(s) + b, each pair by itself
CLAP                  audio, text     a scale for each direction
X-CLIP                video, text     its words that a video rewrites (prompts) have no form here: the plain towers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generalist.convert.pairs.build import Pair
from generalist.convert.pairs.tokenizer import Rules, load_tokenizer, text_settings
from generalist.convert.report import Report
from generalist.data.base.errors import UserError, one_line
from generalist.tokenizers_mod.libraries.weights import refuse_pickles
from generalist.tokenizers_mod.towers.network import OWN, library_features
from generalist.tokenizers_mod.towers.pictures import ClipTower, PictureTower
from generalist.tokenizers_mod.towers.sounds import SoundTower
from generalist.tokenizers_mod.towers.tower import Tower
from generalist.tokenizers_mod.towers.words import TextTower

# model type -> the side beside the text
KINDS = {
    "clip": "image",
    "metaclip_2": "image",
    "chinese_clip": "image",
    "altclip": "image",
    "siglip": "image",
    "siglip2": "image",
    "clap": "audio",
    "xclip": "video",
}


def pair_of(folder: Path, config: dict[str, Any], report: Report) -> tuple[Pair, nn.Module]:
    """The pair of a folder, and the library's own model. UserError: something of it is missing or does not fit."""
    kind = config["model_type"]
    side = KINDS[kind]
    model = library_model(folder)
    values = json.loads(model.config.to_json_string(use_diff=False))
    tokenizer = load_tokenizer(folder)
    shared: dict[str, Any] = {"library": "transformers", "config": values}
    towers: dict[str, Tower] = {side: _beside(side, folder, config, shared | {"size": 1})}
    towers["text"] = TextTower(**shared, size=1, **_words(tokenizer, kind, values, str(folder)))
    state, parts = model.state_dict(), {name for name, _ in model.named_children()}
    tensors: dict[str, dict[str, Tensor]] = {}
    used: set[str] = set()
    for name, tower in towers.items():
        own = {part for part in parts if part.startswith(OWN[tower.side])}
        tensors[name] = {key: value for key, value in state.items() if key.partition(".")[0] in own}
        used |= own
        tower.size = _width(model, tower)
    if left := sorted(parts - used):
        report.unused += [key for key in state if key.partition(".")[0] in left]
        report.notes.append(
            f"left out: {', '.join(left)}, by which a video rewrites the texts; features and logits are those of the "
            "two towers, not of the whole X-CLIP"
            if side == "video"
            else f"left out: {', '.join(left)}"
        )
    law = dict(model.named_parameters(recurse=False))
    bias = law.get("logit_bias")
    if "logit_scale_a" in law:
        further = {"text_to_audio": law["logit_scale_t"]}
        report.notes.append("the scale of texts that ask for sounds is the logit scale text_to_audio")
        return Pair(towers, tensors, law["logit_scale_a"], further=further), model
    return Pair(towers, tensors, law["logit_scale"], bias, pairwise=bias is not None), model


def library_model(folder: Path) -> Any:
    """The model of a folder by the library's own loader, in evaluation mode; float32. UserError: it does not load."""
    from transformers import AutoModel
    from transformers.utils import logging

    if not any(folder.glob("*.safetensors")):
        refuse_pickles(folder)
        raise UserError(f"{folder} holds no model.safetensors; fetch the model again")
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # they are named below
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # one line says it
    try:
        model, found = AutoModel.from_pretrained(folder, **options)
    except Exception as error:  # json, safetensors and transformers each fail in their own way
        raise UserError(f"{folder} cannot be loaded ({one_line(error)[:160]}); fetch the model again") from error
    finally:
        logging.set_verbosity(level)
    wrong = [f"{name} is {tuple(theirs)} instead of {tuple(ours)}" for name, theirs, ours in found["mismatched_keys"]]
    wrong += [f"it lacks {name}" for name in sorted(found["missing_keys"])]
    if wrong:
        raise UserError(f"the weights in {folder} do not fit its config.json: {sorted(wrong)[0]} ({len(wrong)} such)")
    return model.eval()


def _beside(side: str, folder: Path, config: dict[str, Any], shared: dict[str, Any]) -> Tower:
    """The tower beside the text. UserError: the folder does not say what is done to a picture or sound."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor

    kind = AutoFeatureExtractor if side == "audio" else AutoImageProcessor
    try:
        found = kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as above
        what = "a sound" if side == "audio" else "a picture"
        line = one_line(error)[:120]
        raise UserError(
            f"{folder} does not say how {what} is prepared ({line}); add preprocessor_config.json"
        ) from error
    settings = json.loads(found.to_json_string())
    if side == "audio":
        return SoundTower(**shared, processor=settings, rate=int(found.sampling_rate))
    settings["image_processor_type"] = type(found).__name__
    if side == "video":
        return ClipTower(**shared, processor=settings, frames=int(config["vision_config"].get("num_frames", 8)))
    return PictureTower(**shared, processor=settings)


def _words(tokenizer: Any, kind: str, config: dict[str, Any], name: str) -> dict[str, Any]:
    """SigLIP's texts fill their rows, others are as long as they are. A text is cut to what both parts take."""
    positions = int(config["text_config"].get("max_position_embeddings", 77))
    if config["text_config"].get("model_type") in ("roberta", "xlm-roberta", "clap_text_model", "altclip_text_model"):
        positions -= 1 + int(config["text_config"].get("pad_token_id") or 0)  # theirs begin behind the padding's
    rules = Rules(
        length=int(min(positions, tokenizer.model_max_length)),
        fixed=kind.startswith("siglip"),
        masked="attention_mask" in tokenizer.model_input_names,
    )
    return text_settings(tokenizer, rules, name)


@torch.no_grad()
def _width(model: Any, tower: Tower) -> int:
    """Channels of a tower's embedding: what the library makes of one sample."""
    raws = {"text": "a", "audio": (np.zeros(8000), 8000)}
    value = tower.read(raws.get(tower.side, np.zeros((32, 32, 3), dtype=np.uint8)))
    try:
        return library_features(model, tower.side, tower.span(value).data).shape[-1]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"the {tower.side} tower refuses what its folder says is made of a sample ({one_line(error)[:140]}); its "
            "sizes in config.json and in the preprocessor's or tokenizer's settings must agree"
        ) from error
