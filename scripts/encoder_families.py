"""Which of transformers' encoders of sounds, films, series and texts run as tokenizers, tiny and with random weights.

    python -m scripts.encoder_families        # a line an encoder; kept in scripts/bench_results/encoders.json

Each reads two samples; its tokens must be finite, and what the encoder makes of the first must be the library's own
hidden states of the same input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.modalities import modality_class

RESULTS = Path(__file__).parent / "bench_results" / "encoders.json"
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLVED = TINY | {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_layers": 1}
WHISPER |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
CLAP = {"patch_embeds_hidden_size": 16, "hidden_size": 64, "depths": [1, 1, 1], "num_attention_heads": [1, 2, 2]}
FILM = TINY | {"image_size": 32, "patch_size": 16, "num_frames": 4}
STEPS = {"context_length": 16, "patch_length": 8, "d_model": 16, "num_input_channels": 1}
WORDS = TINY | {"vocab_size": 14, "max_position_embeddings": 20}
DISTIL = {"vocab_size": 14, "max_position_embeddings": 20, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}

# {modality: {model_type: settings of its configuration}}
ENCODERS: dict[str, dict[str, dict[str, Any]]] = {
    "pretrained_audio": {
        "audio-spectrogram-transformer": TINY | {"num_mel_bins": 32, "max_length": 64},
        "clap": {"audio_config": CLAP | {"num_hidden_layers": 3}},
        "wav2vec2": CONVOLVED,
        "hubert": CONVOLVED,
        "wavlm": CONVOLVED,
        "whisper": WHISPER,
        "sew": CONVOLVED | {"conv_dim": [8] * 13},
        "unispeech": CONVOLVED,
    },
    "pretrained_video": {"videomae": FILM, "timesformer": FILM, "vivit": FILM | {"tubelet_size": [2, 16, 16]}},
    "pretrained_series": {
        "patchtst": STEPS | {"patch_stride": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16},
        "patchtsmixer": STEPS | {"patch_stride": 8, "num_layers": 1},
        "timesfm": TINY | {"patch_length": 8, "context_length": 32, "head_dim": 16},
    },
    "pretrained_text": {
        "bert": WORDS,
        "roberta": WORDS,
        "electra": WORDS | {"embedding_size": 16},
        "mpnet": WORDS,
        "distilbert": DISTIL,
        "deberta-v2": WORDS,
        "modernbert": WORDS | {"pad_token_id": 0, "global_attn_every_n_layers": 1},
    },
}


def settings_of(name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Of the modality around this encoder."""
    if name != "pretrained_text":
        return {"backbone": {"model_type": kind, **config}}
    shown = dict(modality_class(name).examples().settings)
    return shown | {"config": {"model_type": kind, "pad_token_id": 0, **config}}


@torch.no_grad()
def tried(name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Tokens of two samples, or the line that refuses."""
    good = {**GOOD}.get(name) or modality_class(name).examples().good[:2]
    try:
        modality = modality_class(name)(**settings_of(name, kind, config))
        module = modality.build(16).eval()
        spans = [modality.span(modality.read(raw)) for raw in good]
        tokens = [module(span.data) for span in spans]
    except UserError as error:
        return {"state": "refused", "reason": str(error)}
    shapes = [(span.length, 16) for span in spans]
    if [tuple(t.shape) for t in tokens] != shapes or not all(bool(t.isfinite().all()) for t in tokens):
        return {"state": "refused", "reason": f"tokens {[tuple(t.shape) for t in tokens]}, not {shapes} or not finite"}
    found = {"state": "works", "tokens": [span.length for span in spans]}
    return found | ({"error": word_error(module, spans[0].data)} if name == "pretrained_text" else {})


def word_error(module: Any, data: Mapping[str, Tensor]) -> float:
    """The largest difference of a text's hidden states from the library's own call."""
    ids = torch.cat([torch.tensor([module.start]), data["ids"]])[None]
    own = module.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 1:]
    return float((module.projection(own) - module(dict(data))).abs().max())


WAVE = np.sin(np.arange(8000) / 5).astype(np.float32)
GOOD = {"pretrained_audio": [(WAVE, 16000), (WAVE[:5000], 16000)]}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    for name, encoders in ENCODERS.items():
        for kind, config in encoders.items():
            found[kind] = {"modality": name, **tried(name, kind, config)}
            print(kind, json.dumps(found[kind]), flush=True)
    works = sum(one["state"] == "works" for one in found.values())
    print(f"{works} of {len(found)} encoders work")
    RESULTS.write_text(json.dumps({"transformers": transformers.__version__, "encoders": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
