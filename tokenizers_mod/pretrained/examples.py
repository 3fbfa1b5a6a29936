"""Examples of the modalities with a pretrained encoder (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.vision.examples import unreadable

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

# parts that make a network's one vector, which maps="last" does not ask for
VECTOR = ["encoder.net.head.", "encoder.net.conv_head.", "encoder.net.bn2."]


def heard() -> Examples:
    rng = np.random.default_rng(0)
    waves = [(rng.normal(size=n).astype(np.float32) * 0.1, 16000) for n in (16000, 4000, 24000)]
    silent: list[tuple[Any, str]] = [((np.zeros(0), 16000), r"no samples"), ("no_such.wav", r"no_such.wav")]
    counted: list[Any] = [({}, waves[0], {})]
    silent.append(((np.full(9, np.nan), 16000), r"NaN|finite"))
    return Examples({"backbone": "test_efficientnet", "size": 64}, waves, silent, [(waves[1], 4)], counted, VECTOR)


def backbone() -> Examples:
    rng = np.random.default_rng(0)
    return Examples(
        {"backbone": "test_convnext", "size": 64},
        [rng.random((20, 33)), rng.random((7, 5, 3)), rng.random((1, 1))],
        [(np.zeros((0, 5)), r"at least one pixel"), *unreadable()],
        [(np.full((1, 1), 0.5), 4)],
        [({}, rng.random((9, 9)), {}), ({"maps": "all"}, rng.random((9, 9)), {})],
        VECTOR,
    )


def stages() -> Examples:
    rng = np.random.default_rng(0)
    counted = [({"size": s, "patch": 32}, rng.random((h, w)), {"H": h, "W": w}) for s, h, w in ((32, 9, 5), (64, 9, 9))]
    return Examples(
        {"network": "test_efficientnet", "stages": 2, "size": 64, "patch": 32},
        [rng.random((20, 33)), rng.random((7, 5, 3)), rng.random((1, 1))],
        [(np.zeros((0, 5)), r"at least one pixel"), *unreadable()],
        [(np.full((1, 1), 0.5), 4)],
        counted,
    )


def text() -> Examples:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "a", "cat", "two", "dogs", "on", "mat", "photo", "of", "no"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    net = {"model_type": "bert", "vocab_size": len(words), "max_position_embeddings": 20, "type_vocab_size": 1, **TINY}
    return Examples(
        {"tokenizer": backend.to_str(), "config": net, "start": "<s>", "end": "</s>", "hide": "<mask>"}
        | {"max_length": 12, "positions": 12},
        ["a cat", "two dogs on a mat", "x"],
        [("", r"empty"), (" \n\t ", r"empty"), (5, r"expected a str")],
        [("no", 2)],
        [({}, "a photo of two dogs", {"pieces": 5}), ({"max_length": 4}, "a photo of two dogs", {"pieces": 5})],
        ["encoder.pooler.", "position."],  # the words of a caption alone have a place of their own
    )


def sentence() -> Examples:
    return Examples(
        {},
        ["a cat", "two dogs on a mat"],
        [("", r"empty"), (" \n\t ", r"empty"), (5, r"expected a str")],
        [("no", 1)],
        [({}, "a photo of two dogs", {})],
    )


def sound() -> Examples:
    from generalist.tokenizers_mod.audio.examples import audio

    shown = audio()
    mel = {"model_type": "audio-spectrogram-transformer", "num_mel_bins": 32, "max_length": 64, **TINY}
    return Examples({"backbone": mel}, shown.good, shown.bad, [(shown.good[0], 12)], [({}, shown.good[0], {})])


def film() -> Examples:
    from generalist.tokenizers_mod.vision.examples import video

    shown = video()
    net = {"model_type": "videomae", "image_size": 32, "patch_size": 16, "num_frames": 4, **TINY}
    least = [(np.zeros((1, 1, 1, 3)), 8)]
    return Examples({"backbone": net}, shown.good, shown.bad, least, [({}, shown.good[0], {})])


def series() -> Examples:
    from generalist.tokenizers_mod.numbers.examples import series as plain

    net = {"model_type": "patchtst", "num_input_channels": 1, "context_length": 16, "patch_length": 8}
    small = {"patch_stride": 8, "d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    shown = plain()
    good = [np.arange(20.0), np.arange(9.0)]
    return Examples({"backbone": net | small}, good, shown.bad, [(np.ones(1), 2)], [({}, good[0], {})])
