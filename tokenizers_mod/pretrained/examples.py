"""Examples of the modalities with a pretrained encoder (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.vision.examples import unreadable


def heard() -> Examples:
    rng = np.random.default_rng(0)
    waves = [(rng.normal(size=n).astype(np.float32) * 0.1, 16000) for n in (16000, 4000, 24000)]
    silent: list[tuple[Any, str]] = [((np.zeros(0), 16000), r"empty|shorter"), ("no_such.wav", r"no_such.wav")]
    return Examples({"backbone": "test_efficientnet", "size": 64}, waves, silent, [(waves[1], 4)])


def backbone() -> Examples:
    rng = np.random.default_rng(0)
    return Examples(
        {"backbone": "test_convnext", "size": 64},
        [rng.random((20, 33)), rng.random((7, 5, 3)), rng.random((1, 1))],
        [(np.zeros((0, 5)), r"at least one pixel"), *unreadable()],
        [(np.full((1, 1), 0.5), 4)],
    )


def sentence() -> Examples:
    return Examples(
        {},
        ["a cat", "two dogs on a mat"],
        [("", r"empty"), (" \n\t ", r"empty"), (5, r"expected a str")],
        [("no", 1)],
        [({}, "a photo of two dogs", {})],
    )


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def sound() -> Examples:
    from generalist.tokenizers_mod.audio.examples import audio

    shown = audio()
    mel = {"model_type": "audio-spectrogram-transformer", "num_mel_bins": 32, "max_length": 64, **TINY}
    return Examples({"backbone": mel}, shown.good, shown.bad)


def film() -> Examples:
    from generalist.tokenizers_mod.vision.examples import video

    shown = video()
    net = {"model_type": "videomae", "image_size": 32, "patch_size": 16, "num_frames": 4, **TINY}
    return Examples({"backbone": net}, shown.good, shown.bad)


def series() -> Examples:
    from generalist.tokenizers_mod.numbers.examples import series as plain

    net = {"model_type": "patchtst", "num_input_channels": 1, "context_length": 16, "patch_length": 8}
    small = {"patch_stride": 8, "d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    shown = plain()
    return Examples({"backbone": net | small}, [np.arange(20.0), np.arange(9.0)], shown.bad)
