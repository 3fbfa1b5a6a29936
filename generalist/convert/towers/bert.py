"""BERT's and RoBERTa's encoders of texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from generalist.convert.report import Report, fill
from generalist.convert.towers.named import Built, Named, layers, pair, spec_of
from generalist.convert.uni_perceiver.vocabulary import renamed_tokenizer
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text

BERT_BLOCK = {
    "attention.output.dense": "mixer.out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
    "output.LayerNorm": "norm2",
}
BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")


def bert(folder: Path, config: dict[str, Any], t: Named) -> Built:
    """BERT (first position 0, [CLS], [SEP], [MASK]); the feature is its first token. The pooler is left out."""
    return _text_encoder(folder, config, t, 0, ("[CLS]", "[SEP]", "[MASK]"), (101, 102, 103))


def roberta(folder: Path, config: dict[str, Any], t: Named) -> Built:
    """RoBERTa: positions begin behind the padding's; <s>, </s>, <mask>."""
    words = t["embeddings.word_embeddings.weight"]
    first = int(config.get("pad_token_id", 1)) + 1
    return _text_encoder(folder, config, t, first, ("<s>", "</s>", "<mask>"), (0, 2, len(words) - 1))


def _text_encoder(
    folder: Path,
    config: dict[str, Any],
    t: Named,
    first: int,
    specials: tuple[str, str, str],
    default_ids: tuple[int, int, int],
) -> Built:
    """first: position of the first token; specials: start, end and mask token, with their usual ids.

    The start token with its position and type is the summary; words begin at the next position.
    """
    if (kind := config.get("position_embedding_type") or "absolute") != "absolute" or config.get("is_decoder"):
        what = "a decoder" if config.get("is_decoder") else f"positions of the kind {kind!r}"
        raise UserError(f"{config['model_type']} with {what} does not convert; take an encoder with absolute positions")
    words = t["embeddings.word_embeddings.weight"]
    positions, types = t["embeddings.position_embeddings.weight"], t["embeddings.token_type_embeddings.weight"]
    entries, width = words.shape
    tokenizer, ids, notes = renamed_tokenizer(folder, entries, specials, default_ids)
    positioned = len(positions) - first - 1
    length = min(positioned, t.behind.length - 1) if t.behind.length > 1 else positioned
    text = Text(tokenizer=tokenizer, max_length=length, positions=positioned)
    ours = {
        "tokenizers.summary.token.weight": (words[ids[0]] + positions[first] + types[0]).reshape(1, width),
        "tokenizers.text.token.weight": words,
        "tokenizers.text.position.weight": positions[first + 1 :],
        "tokenizers.text.type_row.weight": types[:1],
    }
    ours |= pair(t, "embeddings.LayerNorm", "embedding_norm")
    ours |= layers(t, "encoder.layer.", BERT_QKV, BERT_BLOCK) | t.behind.tensors
    sizes = {"layers": config["num_hidden_layers"], "hidden": config["intermediate_size"], "width": width}
    spec = replace(spec_of({"hidden_act": "gelu", "layer_norm_eps": 1e-12, **config}), **sizes, norm="post")
    own = spec.described() | {"initial_scale": 1 / 0.07, "output_head": False} | t.behind.settings
    model = GeneralistModel(GeneralistConfig(**own, modalities=modality_settings({"summary": Summary(), "text": text})))
    model.eval()
    report = Report(f"Hugging Face {config['model_type']}", notes=notes + t.behind.notes)
    kept = {k: v for k, v in model.state_dict().items() if k.startswith("log_scales.")}
    fill(model, {**kept, **ours}, report, t.lenient)
    report.loaded -= len(kept)
    return model, GeneralistProcessor(tokenizer=text.hf_tokenizer(), modalities=model.config.modalities), report
