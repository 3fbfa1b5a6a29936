"""open_clip's own models, whole or one tower, beside those that were made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from generalist.convert import open_clip as single
from generalist.convert.originals.inputs import TEXTS, most_pieces, pictures, pixels
from generalist.convert.pairs import open_clip as pairs
from generalist.convert.parity import Compared, difference
from generalist.convert.report import Report
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor


def compare(
    checkpoint: Path, options: dict[str, Any], model: GeneralistModel, processor: GeneralistProcessor
) -> list[Compared]:
    name, tower, lenient = str(checkpoint), options.get("tower", "both"), bool(options.get("lenient"))
    if not Path(name).is_dir() and not name.partition(":")[2]:
        raise UserError("the weights are fresh, so that there is no original; convert ARCH:WEIGHTS")
    if tower == "both":
        return _both(name, options.get("tokenizer"), lenient, model, processor)
    if tower == "image":
        shown = pixels(processor.built["image"])
        found = single.image_tower(name, lenient=lenient)(shown)
        theirs = found[0] if isinstance(found, tuple) else found
        return [difference("features of 2 pictures", model.get_image_features(shown).pooler_output, theirs)]
    return [_texts(name, lenient, model, processor)]


def _texts(name: str, lenient: bool, model: GeneralistModel, processor: GeneralistProcessor) -> Compared:
    import open_clip

    text: Any = single.text_tower(name, lenient=lenient)
    rows = open_clip.SimpleTokenizer(context_length=most_pieces(processor) + 1)(TEXTS)
    theirs = text.encode_text(rows) if isinstance(text, open_clip.CLIP) else text(rows)
    ours = model.get_text_features(**processor(text=TEXTS, return_tensors="pt")).pooler_output
    return difference("features of 3 texts", ours, theirs)


def _both(
    name: str, tokenizer: Path | None, lenient: bool, model: GeneralistModel, processor: GeneralistProcessor
) -> list[Compared]:
    from PIL import Image

    source = pairs.source_of(name, tokenizer)
    original: Any = pairs.pair_of(source, Report(name), lenient)[1]
    shown = [Image.fromarray(one) for one in pictures()]
    tensors = processor(image=shown, text=TEXTS, return_tensors="pt")
    from generalist.tokenizers_mod.towers.pictures import open_clip_transform

    transform = open_clip_transform(pairs.preprocessing(original, source))
    seen = torch.stack([transform(one) for one in shown])
    image = original.encode_image(seen, normalize=True)
    text = original.encode_text(_rows(source), normalize=True)
    logits = image @ text.T * original.logit_scale.exp()
    if getattr(original, "logit_bias", None) is not None:
        logits = logits + original.logit_bias
    found = model(**tensors)
    return [
        difference("pixels of 2 pictures", tensors["pixel_values"], seen),
        difference("features of 2 pictures", found.embeds, normalize(image, dim=-1)),
        difference("features of 3 texts", found.text_embeds, normalize(text, dim=-1)),
        difference("logits of 2 pictures and 3 texts", found.logits, logits),
    ]


def _rows(source: pairs.Source) -> Tensor:
    """What the library's tokenizer makes of the texts."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = source.config["text_cfg"]
    length, kwargs = int(text.get("context_length", 77)), dict(text.get("tokenizer_kwargs") or {})
    if not text.get("hf_tokenizer_name"):
        return SimpleTokenizer(context_length=length, **kwargs)(TEXTS)
    mode = text.get("tokenizer_mode")
    return HFTokenizer(str(source.tokenizer), context_length=length, tokenizer_mode=mode, **kwargs)(TEXTS)
