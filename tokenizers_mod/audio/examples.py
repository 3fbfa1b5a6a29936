"""Examples of sounds (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

import numpy as np

from generalist.tokenizers_mod.base.examples import NAN, Examples, cut_wav


def audio() -> Examples:
    rng = np.random.default_rng(0)
    sounds: tuple[tuple[int, int, dict[str, list[int]]], ...] = (
        (400, 16000, {}),
        (5000, 16000, {}),
        (5000, 8000, {"patch": [20, 4], "stride": [20, 4]}),
        (3333, 22050, {"patch": [7, 3], "stride": [5, 2]}),
    )
    return Examples(
        {"rate": 8000, "mels": 20, "patch": [20, 4], "stride": [20, 4]},
        [(rng.normal(size=3000), 8000), (rng.normal(size=900), 16000)],
        [
            ((np.zeros(0), 8000), r"no samples"),
            ((np.zeros(1), 8000), r"less than one frame"),
            ((np.zeros(900), 0), r"sampling rate"),
            ((np.zeros(900), -8000), r"sampling rate"),
            ((np.zeros(900), 8000.5), r"sampling rate"),
            ((np.full(900, NAN), 8000), r"NaN"),
            ((np.zeros((2, 9, 9)), 8000), r"expected numbers"),
            (np.zeros(900), r"give a path"),
            (cut_wav(), r"cut\.wav.*(readable|samples|frame)"),
        ],
        [((np.zeros(200), 8000), 1)],  # one frame, silence
        [
            (
                {"rate": rate, "mels": 20, **more},
                (rng.normal(size=t), rate),
                {"F": 1 + (t - rate // 40) // (rate // 100)},
            )
            for t, rate, more in sounds
        ],
    )
