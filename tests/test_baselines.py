"""The ordinary baselines: right on cases worked by hand, better than chance on the embedded sets, repeatable."""

from functools import partial

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from generalist.data.batch.types import IGNORE
from generalist.data.sources.embedded import Embedded
from generalist.data.stream.source import Records
from generalist.tasks.baselines import baselines, features
from generalist.tasks.baselines.budget import OutOfTime, budget
from generalist.tasks.baselines.choice import Method, choose, refitted
from generalist.tasks.baselines.methods import Splits

KEYS = {"name", "metric", "better", "value", "chance", "baseline", "n_test"}


def splits(name: str, most: int | None = None) -> list[Records]:
    opened = [Embedded(name).open(split) for split in ("train", "val", "test")]
    return [Records(records.rows[:most], records.info) for records in opened]


@pytest.mark.parametrize(
    ("method", "name", "most"),
    [
        (partial(baselines.classification, {"image": "image"}, "label"), "digits", None),
        (partial(baselines.classification, {"table": "row"}, "label"), "wine", None),
        (partial(baselines.classification, {"table": "row"}, "label"), "anes96", None),
        (partial(baselines.classification, {"audio": "audio"}, "label"), "tones", 300),
        (partial(baselines.classification, {"points": "points"}, "label"), "solids", 300),
        (partial(baselines.regression, {"table": "row"}, "target"), "diabetes", None),
        (partial(baselines.retrieval, {"image": "image"}, "text"), "glyphs", 1500),
        (lambda train, val, test, name: baselines.forecasting("past", "future", val, test, name), "series", None),
    ],
)
def test_a_baseline_beats_chance_and_leaves_room(method, name, most):
    parts = splits(name, most)
    result = method(*parts, name=name)
    assert set(result) >= KEYS and result["name"] == name and result["n_test"] == len(parts[2])
    if result["better"] == "higher":
        assert result["chance"] < result["value"] < 1
    else:
        assert 0 < result["value"] < result["chance"]


def test_the_same_data_give_the_same_result():
    parts = splits("wine")
    tables = partial(baselines.classification, {"table": "row"}, "label")
    assert tables(*parts) == tables(*parts)


def test_chance_is_the_most_common_training_class_not_the_most_common_test_class():
    x = np.arange(10.0)[:, None]
    train, test = np.array([0] * 7 + [1] * 3), np.array([0] * 2 + [1] * 8)
    assert baselines.classification_baseline(Splits((x, train), (x, test)))["chance"] == pytest.approx(0.2)


def test_the_method_is_chosen_without_looking_at_the_test_labels():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((90, 3)), rng.integers(0, 2, 90)
    train = (x[:60], y[:60])
    first = baselines.classification_baseline(Splits(train, (x[60:], y[60:])), boosting=True)
    second = baselines.classification_baseline(Splits(train, (x[60:], 1 - y[60:])), boosting=True)
    assert first["baseline"] == second["baseline"] and first["value"] == pytest.approx(1 - second["value"])


def test_regression_error_is_in_the_targets_units():
    x = np.arange(40.0)[:, None]
    result = baselines.regression_baseline(Splits((x, 1000 * x[:, 0]), (x, 1000 * x[:, 0])))
    assert result["chance"] == pytest.approx(1000 * x.std()) and result["value"] < 0.2 * result["chance"]


def test_retrieval_finds_texts_whose_words_the_input_spells_out():
    words = np.array(["red", "green", "blue", "round", "flat", "tall"])
    x = np.array([[(i >> k) & 1 for k in range(6)] for i in range(1, 64)], dtype=float)
    texts = [" ".join(words[row > 0]) for row in x]
    result = baselines.retrieval_baseline(Splits((x[::2], texts[::2]), (x[1::2], texts[1::2])))
    assert result["value"] > 0.5 and result["value_reverse"] > 0.5 and result["chance"] == pytest.approx(1 / 31)


def test_forecasts_by_hand():
    past = np.array([[0.0, 2.0, 0.0, 2.0]])  # its standard deviation is 1
    future = np.array([[0.0, 2.0, 0.0]])
    result = baselines.forecasting_baseline(past, future, np.array([2]))
    assert result["value_seasonal"] == 0 and result["value_last"] == pytest.approx(4 / 3)
    assert result["chance"] == 1 and result["baseline"] == "last value"
    chosen = baselines.forecasting_baseline(past, future, np.array([2]), val=(past, future, np.array([2])))
    assert chosen["baseline"] == "seasonal naive" and chosen["value"] == 0


def test_a_window_that_does_not_move_has_a_finite_error():
    past = np.full((1, 4), 5.0)
    assert np.isfinite(baselines.scaled_mae(past[:, -1:], past, np.full((1, 2), 5.0)))


def test_a_hidden_word_is_guessed_from_both_neighbours():
    train = [np.array(s) for s in ([1, 2, 3], [1, 2, 3], [1, 4, 5], [6, 4, 5], [6, 4, 5], [6, 2, 3])]
    ids = np.array([[1, 9, 3], [6, 9, 5], [1, 9, 5]])  # 9 hides the word
    labels = np.array([[IGNORE, 2, IGNORE], [IGNORE, 4, IGNORE], [IGNORE, 4, IGNORE]])
    result = baselines.masked_word_baseline(train, [(ids, labels)], vocabulary=10)
    assert result["value"] == 1 and result["n_test"] == 3


def test_a_hidden_neighbour_tells_nothing_and_the_guess_backs_off_to_the_most_frequent():
    train = [np.array([7, 7, 7, 1, 2])]
    ids, labels = np.array([3, 3]), np.array([7, 2])  # both asked: neither may see the other
    result = baselines.masked_word_baseline(train, [(ids, labels)], vocabulary=10)
    assert result["value"] == result["chance"] == 0.5


def test_only_the_asked_positions_count():
    ids, labels = np.array([1, 2, 3]), np.full(3, IGNORE)
    assert baselines.masked_word_baseline([ids], [(ids, labels)], vocabulary=5)["n_test"] == 0


def test_shape_features_do_not_change_when_the_cloud_is_turned_or_scaled():
    points = Embedded("solids").open("test")[0]["points"].astype(float)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    found = [features.shape_histogram(cloud) for cloud in (points, 3 * points @ turn)]
    assert np.abs(found[0] - found[1]).max() < 1e-2


class Late(DummyClassifier):
    """Its first fit is done in time; in every later one the budget ends."""

    fits = 0

    def fit(self, X, y):
        Late.fits += 1
        if Late.fits > 1:
            raise OutOfTime(1.0)
        return super().fit(X, y)


@pytest.mark.parametrize("strong", [False, True])
def test_a_budget_that_ends_after_the_first_method_is_fitted_leaves_this_one(strong):
    Late.fits = 0
    x, y = np.zeros((20, 1)), np.array([0, 1] * 10)
    with budget(60.0, strong=strong):
        found = choose([Method("first", Late), Method("second", Late)], x, y, x, y)
        assert (found.name, found.left_out) == ("first", ["second"])
        assert refitted(found, [(x, y), (x, y)]) is found.model and found.model.score(x, y) == 0.5


def test_partners_that_the_features_do_not_tell_apart_are_found_by_chance_and_equal_texts_either_way():
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(2), 20, 0) + rng.normal(0, 0.01, (40, 2))
    texts = [f"{('cat', 'dog')[i // 20]} {i}" for i in range(40)]  # numbers that no other text has
    kinds = [text[:3] for text in texts]
    train, test = np.arange(0, 40, 2), np.arange(1, 40, 2)

    def found(texts):
        part = [(x[rows], [texts[i] for i in rows]) for rows in (train, test)]
        return baselines.retrieval_baseline(Splits(*part))["value"]

    assert found(texts) == pytest.approx(0.1) and found(kinds) == 1
