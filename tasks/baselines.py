"""What ordinary methods reach on the same splits: measured in the same run as the model, seeds fixed.

Every function returns one flat dict: name, metric, better ("higher" or "lower"), value (the baseline's),
chance (of a guess that ignores the input), baseline (which method), n_test. Where there are several
methods or strengths the choice is made on validation data, never on test data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from data.source import Records
from data.types import IGNORE
from tasks import features, ridge
from tasks.plain import plain_features

Result = dict[str, Any]
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverse regularisation of logistic regression
RIDGE = (0.1, 1.0, 10.0, 100.0)  # regularisation of ridge regression on standardised features


def classification_baseline(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    x_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    boosting: bool = False,
    name: str = "",
) -> Result:
    """Accuracy of logistic regression (or boosted trees, if allowed and better); chance: the most common class.

    x: [n, d]; y: Int[n]. Without validation data a fifth of the training rows is set aside to choose.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    methods: dict[str, Callable[[], Any]] = {
        f"logistic regression C={c}": partial(make_pipeline, StandardScaler(), LogisticRegression(C=c, max_iter=200))
        for c in STRENGTHS
    }
    if (x_train == 0).mean() > 0.9:  # counts of many rare things are better left as they are
        methods |= {
            f"logistic regression, unscaled, C={c:g}": partial(LogisticRegression, C=c, max_iter=200)
            for c in (1.0, 10.0, 100.0)
        }
    if boosting:
        methods["gradient boosting"] = lambda: HistGradientBoostingClassifier(max_iter=60, random_state=0)
    (x_fit, y_fit), (x_val, y_val) = _with_val(x_train, y_train, x_val, y_val)
    method, model = _choose(methods, x_fit, y_fit, x_val, y_val)
    common = np.bincount(y_train).argmax()
    return _result(name, "accuracy", model.score(x_test, y_test), (y_test == common).mean(), method, len(y_test))


def regression_baseline(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    x_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    name: str = "",
) -> Result:
    """RMSE, in the target's units, of ridge regression (scaled or not) or boosted trees; chance: the training mean."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    methods: dict[str, Callable[[], Any]] = {
        f"ridge regression alpha={a:g}": partial(make_pipeline, StandardScaler(), Ridge(a)) for a in RIDGE
    }
    # counts of many rare things are better left as they are
    methods |= {f"ridge regression, unscaled, alpha={a:g}": partial(Ridge, a) for a in RIDGE}
    methods["gradient boosting"] = lambda: HistGradientBoostingRegressor(max_iter=100, random_state=0)
    (x_fit, y_fit), (x_val, y_val) = _with_val(x_train, y_train, x_val, y_val)
    method, model = _choose(methods, x_fit, y_fit, x_val, y_val)
    error, guess = _rmse(model.predict(x_test), y_test), _rmse(y_train.mean(), y_test)
    return _result(name, "RMSE", error, guess, method, len(y_test), better="lower")


def retrieval_baseline(
    x_train: np.ndarray,
    texts_train: list[str],
    x_test: np.ndarray,
    texts_test: list[str],
    x_val: np.ndarray | None = None,
    texts_val: list[str] | None = None,
    name: str = "",
) -> Result:
    """R@1 over the test gallery: ridge from x [n, d] to TF-IDF of the texts, ranked by cosine.

    value: from x to text; value_reverse: from text to x; chance: one over the gallery's size. Words
    count by themselves and in pairs. A text that occurs twice in the gallery counts as found either way.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(token_pattern=r"(?u)\w+", ngram_range=(1, 2), min_df=2, dtype=np.float32)
    y_train = words.fit_transform(texts_train).toarray()
    centre, scale = x_train.mean(0), x_train.std() + 1e-9
    (x_fit, y_fit), (x_val, told) = _with_val(
        x_train, y_train, x_val, texts_val and words.transform(texts_val).toarray()
    )

    def ranks(model: Any, x: np.ndarray, text: np.ndarray) -> tuple[float, float]:
        guess = model.predict((x - centre) / scale)
        guess /= np.linalg.norm(guess, axis=1, keepdims=True) + 1e-9
        likeness = guess @ text.T  # TF-IDF rows have length 1
        same = (text @ text.T) > 1 - 1e-6
        across = np.arange(len(x))
        return same[across, likeness.argmax(1)].mean(), same[across, likeness.argmax(0)].mean()

    fitted = {a: Ridge(a).fit((x_fit - centre) / scale, y_fit) for a in RIDGE}
    alpha, model = max(fitted.items(), key=lambda item: sum(ranks(item[1], x_val, told)))
    forth, back = ranks(model, x_test, words.transform(texts_test).toarray())
    method = f"ridge regression to TF-IDF alpha={alpha:g}"
    return {**_result(name, "R@1", forth, 1 / len(texts_test), method, len(texts_test)), "value_reverse": float(back)}


Window = tuple[np.ndarray, np.ndarray, np.ndarray]


def forecasting_baseline(
    past: np.ndarray,
    future: np.ndarray,
    period: np.ndarray,
    val: Window | None = None,
    name: str = "",
    train: tuple[np.ndarray, np.ndarray] | None = None,
    units: str = "past",
) -> Result:
    """MAE of the last value, the last season again or, with training windows, a ridge regression on the past.

    past: [n, L], future: [n, H], period: Int[n], steps a season. `val` (of the same three) chooses the method, without
    it the last value stands. value_last and value_seasonal give both; chance: the past window's mean. units: "past",
    each window's error over its past's deviation, or "data".
    """
    matrix = None if train is None else linear_forecast(*train)

    def errors(past: np.ndarray, future: np.ndarray, period: np.ndarray) -> dict[str, float]:
        horizon = future.shape[1]
        seasonal = np.stack([np.resize(p[-s:], horizon) for p, s in zip(past, period, strict=True)])
        guesses = {"last value": past[:, -1:], "seasonal naive": seasonal, "mean": past.mean(1, keepdims=True)}
        if matrix is not None:
            guesses["ridge regression on the past"] = (past - past[:, -1:]) @ matrix + past[:, -1:]
        if units == "data":
            return {method: float(np.abs(guess - future).mean()) for method, guess in guesses.items()}
        return {method: scaled_mae(guess, past, future) for method, guess in guesses.items()}

    found = errors(past, future, period)
    told = errors(*val) if val is not None else {"last value": 0.0}
    method = min((m for m in told if m != "mean"), key=told.__getitem__)
    metric = "MAE" if units == "data" else "MAE/std"
    result = _result(name, metric, found[method], found["mean"], method, len(past), better="lower")
    return {**result, "value_last": found["last value"], "value_seasonal": found["seasonal naive"]}


def linear_forecast(past: np.ndarray, future: np.ndarray, strength: float = 10.0) -> np.ndarray:
    """[n, L], [n, H] -> [L, H]: ridge from the past minus its last value to the future minus it."""
    last = past[:, -1:]
    windows = zip(torch.from_numpy(past - last), torch.from_numpy(future - last), strict=True)
    return ridge.fit(windows, past.shape[1], strength).numpy()


def scaled_mae(guess: np.ndarray, past: np.ndarray, future: np.ndarray) -> float:
    """Mean absolute error of guess [n, H] or [n, 1] for future [n, H], each window over its past's std.

    The std is bounded below by a millionth of the past's largest value, for windows that do not move.
    """
    past, future = past.astype(float), future.astype(float)
    unit = np.maximum(past.std(1), 1e-6 * np.abs(past).max(1) + 1e-12)
    return float((np.abs(guess - future).mean(1) / unit).mean())


def masked_word_baseline(
    train: Iterable[np.ndarray],
    test: Iterable[tuple[np.ndarray, np.ndarray]],
    vocabulary: int,
    val: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
    name: str = "",
) -> Result:
    """Accuracy of guessing a hidden word piece from its two neighbours; chance: the most frequent piece.

    train: sequences of piece ids (Int[n], unmasked), each below `vocabulary`. test, val: pairs (ids,
    labels), Int[n] or Int[B, n] alike: labels hold the piece where the question is asked and IGNORE
    elsewhere; ids hold what the model saw there, and a position that is asked, or beyond an end, tells
    nothing as a neighbour. Give the model's own test batches, so that both answer the same questions.
    n_test: questions. The guess maximises p(piece | left) p(right | piece), both from bigram counts
    that back off to single counts; `val` chooses how strongly.
    """
    from scipy.sparse import coo_array

    train = [np.asarray(ids, dtype=np.int64).ravel() for ids in train]
    count = sum((np.bincount(ids, minlength=vocabulary) for ids in train), np.zeros(vocabulary, dtype=np.int64))
    alone = (count + 0.1) / (count + 0.1).sum()
    first, second = (np.concatenate([ids[cut] for ids in train]) for cut in (slice(None, -1), slice(1, None)))
    pairs = coo_array((np.ones(len(first)), (first, second)), shape=(vocabulary, vocabulary))
    rows, columns = pairs.tocsr(), pairs.tocsc()  # rows: what follows; columns: what comes before
    rows.sum_duplicates()
    columns.sum_duplicates()

    def dense(matrix: Any, i: int) -> np.ndarray:
        out = np.zeros(vocabulary)
        part = slice(matrix.indptr[i], matrix.indptr[i + 1])
        out[matrix.indices[part]] = matrix.data[part]
        return out

    def guess(left: int | None, right: int | None, strength: float) -> int:
        score = alone.copy()
        if left is not None:
            score = (dense(rows, left) + strength * alone) / (count[left] + strength)
        if right is not None:
            score = score * (dense(columns, right) + strength * alone[right]) / (count + strength)
        return int(score.argmax())

    def accuracy(questions: list[tuple[int | None, int | None, int]], strength: float) -> float:
        known: dict[tuple, int] = {}  # the same neighbours come back often
        for left, right, _ in questions:
            if (left, right) not in known:
                known[left, right] = guess(left, right, strength)
        return float(np.mean([known[left, right] == answer for left, right, answer in questions]))

    strength = 10.0
    if val is not None and (chosen := _questions(val)):
        strength = max((1.0, 10.0, 100.0), key=lambda s: accuracy(chosen, s))
    asked = _questions(test)
    value = accuracy(asked, strength) if asked else float("nan")
    chance = float(np.mean([answer == count.argmax() for *_, answer in asked])) if asked else float("nan")
    return _result(name, "accuracy", value, chance, f"bigrams of both neighbours, back-off {strength:g}", len(asked))


def _questions(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[tuple[int | None, int | None, int]]:
    """(left piece, right piece, answer) of every asked position; None where the neighbour is unknown."""
    found = []
    for ids, labels in batches:
        for row, asked in zip(np.atleast_2d(np.asarray(ids)), np.atleast_2d(np.asarray(labels)), strict=True):
            seen = [None if label != IGNORE else int(piece) for piece, label in zip(row, asked, strict=True)]
            around = [None, *seen, None]
            found += [(around[i], around[i + 2], int(asked[i])) for i in np.flatnonzero(asked != IGNORE)]
    return found


def classification(
    inputs: dict[str, str], label: str, train: Records, val: Records, test: Records, name: str = ""
) -> Result:
    """Logistic regression (or boosted trees) on simple features of the first input that has any."""
    x, boosting = _sides(inputs, train, val, test)
    told = [np.array(features.values(part, label)) for part in (train, val, test)]
    codes = np.unique(np.concatenate(told), return_inverse=True)[1]  # names and numbers alike
    y = np.split(codes, np.cumsum([len(part) for part in told])[:-1])
    return classification_baseline(x[0], y[0], x[2], y[2], x[1], y[1], boosting, name)


def regression(
    inputs: dict[str, str], target: str, train: Records, val: Records, test: Records, name: str = ""
) -> Result:
    """Ridge regression or gradient boosting on simple features of the first input that has any."""
    x, _ = _sides(inputs, train, val, test)
    y = [np.array(features.values(part, target), dtype=float) for part in (train, val, test)]
    return regression_baseline(x[0], y[0], x[2], y[2], x[1], y[1], name=name)


def retrieval(inputs: dict[str, str], text: str, train: Records, val: Records, test: Records, name: str = "") -> Result:
    """Ridge regression from simple features to the texts' TF-IDF; the mean of both directions over all of `test`."""
    x, _ = _sides(inputs, train, val, test)
    texts = [features.values(part, text) for part in (train, val, test)]
    found = retrieval_baseline(x[0], texts[0], x[2], texts[2], x[1], texts[1], name=name)
    return found | {"value": (found["value"] + found["value_reverse"]) / 2}


def forecasting(
    past: str,
    future: str,
    val: Records,
    test: Records,
    name: str = "",
    train: Records | None = None,
    units: str = "past",
) -> Result:
    """Last value, seasonal naive or, with training windows that all have one length, a ridge regression."""

    def windows(part: Records) -> Window:
        return tuple(np.array(features.values(part, key)) for key in (past, future, "period"))  # type: ignore[return-value]

    asked, fit = windows(test), None
    if train is not None:
        pasts, futures = (features.values(train, key) for key in (past, future))
        if {len(values) for values in pasts} == {asked[0].shape[1]}:
            fit = np.array(pasts, dtype=float), np.array(futures, dtype=float)
    return forecasting_baseline(*asked, val=windows(val), name=name, train=fit, units=units)


def _sides(inputs: dict[str, str], train: Records, val: Records, test: Records) -> tuple[list[np.ndarray], bool]:
    """Features of the inputs, [n, d] a split, and whether boosted trees may use them.

    One input with an extractor of its own goes through it; anything else through features that fit any raw value.
    """
    (modality, field), *more = inputs.items()
    if not more and modality in features.EXTRACTORS and features.is_numeric(train[0][field]):
        extract, boosting = features.EXTRACTORS[modality]
        return [extract(part, field) for part in (train, val, test)], boosting
    found = plain_features(train, [val, test], list(inputs.values()))
    return found, found[0].shape[1] <= 400


def _with_val(x: np.ndarray, y: np.ndarray, x_val: Any, y_val: Any) -> tuple[tuple, tuple]:
    """(rows to fit, rows to choose by): the given validation rows, or a fifth of the training rows."""
    if x_val is not None:
        return (x, y), (x_val, y_val)
    order = np.random.default_rng(0).permutation(len(x))
    cut = max(1, len(x) // 5)
    return (x[order[cut:]], y[order[cut:]]), (x[order[:cut]], y[order[:cut]])


def _choose(methods: dict[str, Callable[[], Any]], x: Any, y: Any, x_val: Any, y_val: Any) -> tuple[str, Any]:
    """The name and the fitted model with the best validation score; the first of equals."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")  # a baseline need not be exact
        fitted = {name: make().fit(x, y) for name, make in methods.items()}
    return max(fitted.items(), key=lambda item: item[1].score(x_val, y_val))


def _rmse(guess: Any, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((guess - truth) ** 2)))


def _result(
    name: str, metric: str, value: float, chance: float, baseline: str, n_test: int, better: str = "higher"
) -> Result:
    return {
        "name": name,
        "metric": metric,
        "better": better,
        "value": float(value),
        "chance": float(chance),
        "baseline": baseline,
        "n_test": int(n_test),
    }
