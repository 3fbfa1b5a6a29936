"""CLIP's text towers as models of this framework: the same features for the same text.

    tokens   start w_1 ... w_n end, each with its position     the start token with its position is the summary
    seen     each token sees those before it and itself       causal words, each opens a block
    feature  the last token, normed and projected             pooling "last" (2103.00020, section 2.4)

    generalist convert open-clip ViT-B-32:openai --tower text --out DIR
    generalist convert hf CLIP_FOLDER --tower text --out DIR

What attends to its padding (SigLIP, MobileCLIP), reads words of another tokenizer or has a class token at its end
(CoCa) has no such form; it is refused, and the reason named.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from generalist.convert.report import Report
from generalist.convert.towers import vit
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.recipe.encoder import EncoderSpec
from generalist.tokenizers_mod.text.text import Text

START, END, WORDS = 49406, 49407, 49408  # of CLIP's sub-words; the last is their number


def why_not(settings: dict[str, Any]) -> str | None:
    """Why the text tower of an open_clip configuration (its text_cfg) does not convert; None where it does."""
    if settings.get("hf_model_name"):
        return f"it is the Hugging Face model {settings['hf_model_name']}; convert its folder with: convert hf"
    if settings.get("embed_cls"):
        return "it reads a class token behind its padding"
    if settings.get("no_causal_mask"):
        return "it attends to its padding"
    if settings.get("vocab_size", WORDS) != WORDS:
        return f"its words are those of the tokenizer {settings.get('hf_tokenizer_name', 'of another size')!r}"
    if settings.get("pool_type", "argmax") != "argmax" or settings.get("proj_type", "linear") != "linear":
        return "it reads another token than the end"
    return None


def stem(words: Tensor, positions: Tensor) -> tuple[dict[str, Tensor], Text]:
    """The tables of words Float[49408 D] and positions Float[1 + n, D] -> summary and text tokenizer, and the text.

    Entries of this framework's vocabulary that CLIP does not have (SPE and two more) start as the mean word.
    """
    if words.ndim != 2 or positions.ndim != 2 or len(positions) < 2:
        shapes = f"{tuple(words.shape)} and {tuple(positions.shape)}"
        raise UserError(f"the tables of words and positions have shapes {shapes}; expected [words, D] and [n, D]")
    if len(words) != WORDS:
        raise UserError(f"the text tower has {len(words)} words, CLIP's tokenizer {WORDS}; only CLIP's texts convert")
    length = len(positions) - 1
    text = Text(max_length=length, positions=length, type_row=False, causal=True)
    more = words.mean(0, keepdim=True).expand(text.vocabulary - WORDS, -1)
    tensors = {
        "tokenizers.text.token.weight": torch.cat([words, more]),
        "tokenizers.text.position.weight": positions[1:],
        "tokenizers.summary.token.weight": (words[START] + positions[0]).reshape(1, -1),
    }
    return tensors, text


def build(
    kind: str,
    tensors: dict[str, Tensor],
    text: Text,
    spec: EncoderSpec,
    families: tuple[str, ...] = (),
    lenient: bool = False,
) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """The model of a text tower, its tensors by this framework's names."""
    note = f"{text.vocabulary - WORDS} entries that CLIP's vocabulary lacks, <|spe|> among them, start as its mean word"
    return vit.build(
        kind,
        tensors,
        replace(spec, readout="last"),
        picture=None,
        text=text,
        notes=(note,),
        families=families,
        lenient=lenient,
    )
