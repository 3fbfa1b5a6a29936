"""Stronger ordinary methods, where the budget asks for them: features that tell what simple ones cannot."""

import numpy as np
import pandas
import pytest

from generalist.fitting.decide import recipe_of
from generalist.fitting.parts import Ask
from generalist.tasks.baselines import strong
from generalist.tasks.baselines.budget import budget
from generalist.tasks.baselines.methods import classifiers, regressors
from generalist.tasks.baselines.plain import SIGNAL, STRONG, kind_of

RING = {"nodes": [0] * 6, "edges": [[i, (i + 1) % 6] for i in range(6)]}
TRIANGLES = {"nodes": [0] * 6, "edges": [[0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3]]}
PATH = {"nodes": [0, 1, 0], "edges": [[0, 1], [1, 2]]}


def test_random_convolutions_tell_shapes_of_equal_moments_and_bands():
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import cross_val_score

    rng = np.random.default_rng(0)
    saw = np.tile(np.linspace(-1, 1, 12), 8)
    kinds = [saw, saw[::-1]]  # the same values and power spectrum, forth and back
    x = [np.roll(kinds[i % 2], rng.integers(12))[:, None] + 0.1 * rng.normal(size=(96, 1)) for i in range(60)]
    y = np.arange(60) % 2
    found = strong.rocket(x)(x)
    assert cross_val_score(RidgeClassifier(), found, y, cv=3).mean() > 0.95
    assert np.array_equal(found, strong.rocket(x)(x))  # nothing of it is left to chance
    two = [np.repeat(s, 2, axis=1) for s in x]
    assert strong.rocket(two)([two[0][:50], two[1]]).shape == (2, strong.rocket(two)(two).shape[1])


def test_neighbourhoods_count_what_lies_around_a_node_whatever_its_number():
    turned = {"nodes": [1, 0, 0], "edges": [[1, 0], [0, 1], [0, 2], [2, 0]]}  # PATH with other numbers, both directions
    assert np.array_equal(strong.neighbourhoods(PATH), strong.neighbourhoods(turned))
    other = PATH | {"nodes": [0, 0, 1]}
    assert not np.array_equal(strong.neighbourhoods(PATH), strong.neighbourhoods(other))
    assert strong.neighbourhoods(RING).shape == strong.neighbourhoods({"nodes": [3], "edges": []}).shape


def test_the_stronger_ones_are_tried_where_the_budget_says_so_and_nowhere_else():
    x = np.random.default_rng(0).normal(size=(60, 5))
    plain = {m.name for m in classifiers(x, 3, True)} | {m.name for m in regressors(x)}
    with budget(0.0, strong=True):
        more = {m.name for m in classifiers(x, 3, True)} | {m.name for m in regressors(x)}
        assert kind_of(x) is STRONG[SIGNAL]
        for method in [*classifiers(x, 2, True), *regressors(x)]:
            method.make().fit(x, np.arange(60) % 2).predict(x[:2])
    assert more - plain >= {"random forest", "kernel support vectors C=1", "extra trees", "slow gradient boosting"}
    assert kind_of(x) is SIGNAL and plain < more


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_cepstra_are_finite_and_tell_pitches(rate):
    t = np.arange(rate) / rate
    low, high = (strong.cepstra(np.sin(2 * np.pi * f * t), rate) for f in (200, 1800))
    assert low.shape == high.shape == (140,) and np.isfinite(low).all() and np.abs(low - high).max() > 1
    assert np.isfinite(strong.cepstra(np.zeros(10), rate)).all()


def test_graphs_and_series_of_several_channels_in_a_cell_are_inputs_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "net": [RING if i % 2 else TRIANGLES for i in range(40)],
            "moves": [rng.normal(size=(20, 3)).tolist() for _ in range(40)],
            "kind": ["ring" if i % 2 else "triangles" for i in range(40)],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    recipe, parts = recipe_of([Ask(str(tmp_path / "t.parquet"), "kind")], "t", 0, 60.0)
    assert recipe.tasks[0].inputs == {"graph": "net", "signal": "moves"}
    assert recipe.modalities["signal"].channels == 3
    assert "1 graphs: net" in " ".join(parts[0].told)
