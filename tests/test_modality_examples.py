"""What `generalist info --modalities` says is true: examples run, and formulas give the number of real tokens."""

import doctest
import json
import math
import sys

import numpy as np
import pytest
import torch

from generalist.cli import main
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.vision.flexi import FlexiImage

CLASSES = {**{name: modality_class(name) for name in MODALITIES}, "flexi": FlexiImage}


@pytest.mark.parametrize("name", list(CLASSES))
def test_the_example_of_a_modality_runs(name):
    kind = CLASSES[name]
    module = sys.modules[kind.__module__]
    (found,) = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__, module, vars(module) | {"np": np})
    assert found.examples, f"{name} shows no example"
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(found, out=printed.append)
    assert result.failed == 0 and result.attempted == len(found.examples), "".join(printed)


def formula(kind: type[Modality]) -> str:
    return kind.count.partition(";")[0]


def tokens(modality: Modality, sizes: dict[str, int]) -> int:
    """The formula's value for these sizes and the modality's settings."""
    words = {"ceil": math.ceil, "max": max, "min": min, "round": round, "__builtins__": {}}
    value = eval(formula(type(modality)), words, modality.settings() | sizes)
    assert isinstance(value, int)
    return value


def ring(n):
    return {"nodes": [0] * n, "edges": [[i, (i + 1) % n] for i in range(n)] + [[1, 0]]}


def audio_frames(t, rate):
    return {"F": 1 + (t - rate // 40) // (rate // 100)}


rng = np.random.default_rng(0)
ROW = {"a": 1.0, "b": "x", "c": None, "d": 3}
# settings, raw value, sizes
CASES = [
    ("summary", {}, None, {}),
    ("text", {"max_length": 9, "positions": 9}, "a photo of two dogs", {"pieces": 5}),
    ("text", {"max_length": 4, "positions": 9}, "a photo of two dogs", {"pieces": 5}),
    *(
        (name, {"size": size, "patch": patch}, rng.random((h, w)) + 0.1, {"H": h, "W": w})
        for name in ("image", "xray", "thermal", "depth")
        for size, patch, h, w in ((32, 8, 20, 40), (64, 16, 7, 5), (24, 8, 1, 1), (48, 16, 300, 2), (32, 4, 31, 33))
    ),
    *(
        ("spectral", {"bands": bands, "patch": 3, **more}, rng.random((h, w, bands)), {"H": h, "W": w})
        for bands, h, w, more in (
            (5, 7, 2, {}),
            (10, 3, 3, {"group": 4}),
            (11, 2, 5, {"group": 3, "stride": 2}),
            (7, 3, 4, {"group": 3, "stride": 2, "cyclic": True}),
            (4, 1, 1, {"group": 4, "stride": 9}),
        )
    ),
    *(
        ("video", {"size": 16, "patch": 8, **more}, np.zeros((t, 9, 12, 3)), {"T": t})
        for t, more in (
            (1, {}),
            (5, {"frames": 5}),
            (12, {"frames": 5, "tubelet": 2}),
            (7, {"frames": 0, "tubelet": 3}),
            (30, {"frames": 8, "sample": 4}),
        )
    ),
    *(
        ("region", {"height": 64, "width": 96, "proposals": 5, "mode": mode}, np.zeros((9, 7, 3)), {})
        for mode in ("both", "regional", "global")
    ),
    *(
        ("audio", {"rate": rate, "mels": 20, **more}, (rng.normal(size=t), rate), audio_frames(t, rate))
        for t, rate, more in (
            (400, 16000, {}),
            (5000, 16000, {}),
            (5000, 8000, {"patch": [20, 4], "stride": [20, 4]}),
            (3333, 22050, {"patch": [7, 3], "stride": [5, 2]}),
        )
    ),
    *(
        ("imu", {"channels": 2, "patch": 8, "window": window}, np.ones((t, 2)), {"t": t})
        for t, window in ((1, 0), (17, 0), (40, 32))
    ),
    *(("graph", {"node_columns": [1], "identifiers": 2}, ring(n), {"nodes": n, "edges": n}) for n in (3, 5, 7)),
    *(
        (
            "points",
            {"groups": 7, "size": 3, "hidden": 4},
            rng.random((n, 3))[rng.integers(0, n, 20) % d],
            {"distinct": d},
        )
        for n, d in ((50, 1), (50, 5))
    ),
    ("points", {"groups": 7, "size": 3, "hidden": 4}, rng.random((90, 3)), {"distinct": 90}),
    *(("series", {"patch": 8, "context": c}, rng.random(t), {"t": t}) for t, c in ((1, 0), (19, 0), (90, 40))),
    *(("slot", {"patch": 5}, horizon, {"horizon": horizon}) for horizon in (1, 5, 12)),
    ("table", {"schemas": {"t": Schema.learn([ROW | {"c": "y"}], None).to_json()}}, ROW, {"columns": 4}),
    ("number", {}, [0.5, 1.5, -1.0], {"k": 3}),
]


@pytest.mark.parametrize(("name", "settings", "raw", "sizes"), CASES)
def test_the_formula_of_a_modality_gives_the_number_of_real_tokens(name, settings, raw, sizes):
    modality = CLASSES[name].from_settings(settings)
    span = modality.span(modality.read(raw))
    real = span.length if span.mask is None else int(span.mask.sum())
    assert real == tokens(modality, sizes)


def test_every_formula_is_tried():
    assert {case[0] for case in CASES} == set(MODALITIES)


def test_info_lists_every_modality_with_raw_formats_and_formula(capsys):
    assert main(["info", "--modalities", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["modalities"]
    assert found == {name: {"raw": k.raw, "tokens": k.count} for name, k in CLASSES.items() if name != "flexi"}
    assert main(["info", "--modalities"]) == 0
    plain = " ".join(capsys.readouterr().out.split())
    for name, kind in CLASSES.items():
        if name in MODALITIES:
            assert " ".join(f"{name} raw: {kind.raw}".split()) in plain
            assert " ".join(f"tokens: {kind.count}".split()) in plain


def test_the_padded_count_is_the_same_where_a_modality_pads():
    image = CLASSES["image"](size=32, patch=8, channels=3)
    tensors = image.tensors([torch.rand(3, 20, 40)])
    assert image.padded(tensors)[0]["patch"].shape[0] == tokens(image, {"H": 20, "W": 40})
