"""Ordinary features of any raw value: every kind gives rows of one length, fitted on training records only."""

import numpy as np
import pytest
from PIL import Image

from generalist.data.stream.source import Records
from generalist.tasks.baselines.baselines import classification, regression
from generalist.tasks.baselines.methods import dense
from generalist.tasks.baselines.plain import plain_features

rng = np.random.default_rng(0)


def signal(n):
    value = rng.normal(size=(n, 3))
    value[0, 1] = np.nan
    return value


KINDS = {
    "words": lambda i: f"a text {i % 3} of words",
    "picture": lambda i: Image.fromarray(rng.integers(0, 255, (9 + i, 12, 3), dtype=np.uint8)),
    "sound": lambda i: {"array": rng.normal(size=300 + 70 * i), "sampling_rate": 8000},
    "graph": lambda i: {"nodes": np.arange(i % 4 + 1), "edges": np.array([[0, i % 4]])},
    "clip": lambda i: rng.integers(0, 255, (3, 16, 24, 3)),
    "signal": lambda i: signal(20 + i),
    "cube": lambda i: rng.integers(0, 255, (3, 3, 4)),
    "row": lambda i: {"a": None if i == 2 else float(i), "b": "xy"[i % 2]},
}


def records(kind, n, start=0):
    return Records([{"x": KINDS[kind](i), "y": i % 2} for i in range(start, start + n)], {})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_raw_value_has_features_of_one_length(kind):
    train, test = records(kind, 8), records(kind, 3, 8)
    a, b = plain_features(train, [test], ["x"])
    assert a.shape[0] == 8 and b.shape[0] == 3 and a.shape[1] == b.shape[1] > 0
    assert all(np.isfinite(dense(found)).all() for found in (a, b))


def test_several_inputs_stand_side_by_side():
    both = Records([{"x": f"w {i}", "z": np.full((2, 2), i)} for i in range(6)], {})
    (found,) = plain_features(both, [], ["x", "z"])
    (words,) = plain_features(both, [], ["x"])
    assert found.shape[1] == words.shape[1] + 4


def test_a_baseline_learns_words_that_tell_classes_apart_by_name_of_class():
    rows = [{"x": ["good day", "bad night"][i % 2], "y": ["yes", "no"][i % 2]} for i in range(40)]
    part = Records(rows, {})
    found = classification({"text": "x"}, "y", part, part, part)
    assert found["value"] == 1.0 and found["chance"] == 0.5


def test_texts_without_spaces_are_counted_in_letters():
    """A molecule's SMILES string is one word: what it holds are its letters and their neighbours."""
    strings = ["CCO", "CCCCO", "OCCO", "CO", "CCC", "CCCCCC"]
    train, test = Records([{"x": s} for s in strings], {}), Records([{"x": "CCCCCCCO"}], {})
    a, b = plain_features(train, [test], ["x"])
    assert a.shape == (6, len({s[i : i + n] for s in strings for n in (1, 2, 3) for i in range(len(s) - n + 1)}))
    assert b.sum() == 8 + 7 + 6 and b.max() == 7  # pieces of 1, 2 and 3 letters; seven times C


def test_a_regression_on_letters_beats_one_on_words():
    draw = np.random.default_rng(1)

    def part(n):
        rows = []
        for _ in range(n):
            text = "".join(draw.choice(list("CNO="), size=draw.integers(3, 12)))
            rows.append({"x": text, "y": text.count("N") - 0.5 * text.count("=")})
        return Records(rows, {})

    found = regression({"text": "x"}, "y", part(80), part(40), part(40))
    assert found["value"] < 0.2 * found["chance"] and found["baseline"].startswith("ridge regression")
