"""Ordinary methods on features, for classification, regression and retrieval: the cheapest first, within a budget.

Results as in `tasks.baselines.baselines`. A method for which the processor seconds do not last is named in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse

from generalist.tasks.baselines import strong
from generalist.tasks.baselines.budget import OutOfTime, clock
from generalist.tasks.baselines.choice import Choice, Matrix, Method, Rows, choose, refitted

Result = dict[str, Any]
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverse regularisation of logistic regression
RIDGE = (0.1, 1.0, 10.0, 100.0)  # regularisation of ridge regression on standardised features
MANY = 30  # classes above which a linear method that costs little a class is tried first
TREE = 1e6  # what growing one small tree costs beside its entries
ITERATIONS = 60  # of logistic regression, as a rule of thumb


@dataclass
class Splits:
    """Features and answers of a task's splits."""

    train: Rows
    test: Rows
    val: Rows | None = None

    @classmethod
    def of(cls, x: list[Matrix], y: list[Any]) -> Splits:
        """Train, test and, where features of it are there, val."""
        return cls(*zip(x, y, strict=False))

    def to_choose(self) -> tuple[Rows, Rows]:
        """(rows to fit, rows to choose by): the validation rows, or a fifth of the training rows."""
        if self.val is not None:
            return self.train, self.val
        x, y = self.train
        order = np.random.default_rng(0).permutation(x.shape[0])
        cut = max(1, x.shape[0] // 5)
        if x.shape[0] < 2:
            return (x, y), (x, y)
        return (x[order[cut:]], y[order[cut:]]), (x[order[:cut]], y[order[:cut]])


def classification_baseline(
    splits: Splits,
    boosting: bool = False,
    name: str = "",
) -> Result:
    """Accuracy of a linear classifier (or boosted trees, if allowed and better); chance: the most common class.

    x: [n, d]; y: Int[n]. Without validation data a fifth of the training rows is set aside to choose.
    """
    (x_train, y_train), (x_test, y_test) = splits.train, splits.test
    common = np.bincount(y_train).argmax()
    chance = (y_test == common).mean()
    if len(np.unique(y_train)) < 2:
        return result_of(name, "accuracy", chance, chance, "the only class of the training data", len(y_test))
    (x_fit, y_fit), (x_val, y_val) = splits.to_choose()
    if len(np.unique(y_fit)) < 2:  # a fifth took the other class away
        (x_fit, y_fit), (x_val, y_val) = (x_train, y_train), (x_train, y_train)
    chosen = choose(classifiers(x_fit, len(np.unique(y_fit)), boosting), x_fit, y_fit, x_val, y_val)
    model = refitted(chosen, [(x_fit, y_fit), (x_val, y_val)]) if clock().strong else chosen.model
    return result_of(name, "accuracy", model.score(x_test, y_test), chance, chosen.said, len(y_test))


def classifiers(x: Matrix, classes: int, boosting: bool = False) -> list[Method]:
    """The methods that may be tried on x [n, d], the cheapest first."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    sparse = issparse(x)
    entries = x.nnz if sparse else x.size
    columns = classes if classes > 2 else 1
    work = 4.0 * entries * columns * ITERATIONS

    def scaled(model: Any) -> Any:
        return make_pipeline(StandardScaler(with_mean=not sparse), model)

    def logistic(c: float) -> Any:
        return LogisticRegression(C=c, max_iter=200)

    def even(c: float) -> Any:
        return scaled(logistic(c))

    def ridge(a: float) -> Any:
        return scaled(RidgeClassifier(a))

    found = []
    if classes > MANY and sparse:
        found += [Method(f"linear support vectors C={c:g}", partial(LinearSVC, C=c), work / 4) for c in (1.0, 0.1, 10)]
    elif classes > MANY:
        squares = float(min(x.shape)) ** 2 * (max(x.shape) + classes)
        found += [Method(f"ridge classifier {a:g}", partial(ridge, a), squares) for a in (1, 100)]
    found += [Method(f"logistic regression C={c}", partial(even, c), work) for c in STRENGTHS]
    if sparse or (x == 0).mean() > 0.9:  # counts of many rare things are better left as they are
        found += [
            Method(f"logistic regression, unscaled, C={c:g}", partial(logistic, c), work) for c in (1.0, 10.0, 100.0)
        ]
    if boosting:
        trees = partial(HistGradientBoostingClassifier, max_iter=60, random_state=0)
        found.append(Method("gradient boosting", trees, 60.0 * columns * (8 * entries + TREE)))
    if clock().strong and not sparse:
        found += [Method(*more) for more in strong.classifiers(x, classes)]
    return found


def regression_baseline(
    splits: Splits,
    name: str = "",
) -> Result:
    """RMSE, in the target's units, of ridge regression (scaled or not) or boosted trees; chance: the training mean."""
    (x_train, y_train), (x_test, y_test) = splits.train, splits.test
    (x_fit, y_fit), (x_val, y_val) = splits.to_choose()
    chosen = choose(regressors(x_train), x_fit, y_fit, x_val, y_val)
    model = refitted(chosen, [(x_fit, y_fit), (x_val, y_val)]) if clock().strong else chosen.model
    error, guess = rmse(model.predict(x_test), y_test), rmse(y_train.mean(), y_test)
    return result_of(name, "RMSE", error, guess, chosen.said, len(y_test), better="lower")


def regressors(x: Matrix) -> list[Method]:
    """The methods that may be tried on x [n, d], the cheapest first."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sparse = issparse(x)

    def scaled(a: float) -> Any:
        return make_pipeline(StandardScaler(with_mean=not sparse), Ridge(a))

    methods = [Method(f"ridge regression alpha={a:g}", partial(scaled, a)) for a in RIDGE]
    # counts of many rare things are better left as they are
    methods += [Method(f"ridge regression, unscaled, alpha={a:g}", partial(Ridge, a)) for a in RIDGE]
    if not sparse:
        trees = partial(HistGradientBoostingRegressor, max_iter=100, random_state=0)
        methods.append(Method("gradient boosting", trees, 800.0 * x.size))
        methods += [Method(*more) for more in (strong.regressors(x) if clock().strong else [])]
    return methods


def retrieval_baseline(
    splits: Splits,
    name: str = "",
) -> Result:
    """R@1 over the test gallery of texts: ridge from x [n, d] to TF-IDF of the texts, ranked by cosine.

    value: from x to text; value_reverse: from text to x; chance: one over the gallery's size. Words
    count by themselves and in pairs. A text that occurs twice in the gallery counts as found either way.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        token_pattern=r"(?u)\w+", ngram_range=(1, 2), min_df=2, max_features=WORDS, dtype=np.float32
    )
    _, texts = splits.train
    try:
        words.fit(texts)
    except ValueError:  # no word stands in two texts
        words.set_params(min_df=1).fit(texts)

    def told(rows: Rows) -> Rows:
        _, kin = np.unique(np.asarray(rows[1]), return_inverse=True)
        return rows[0], Partners(words.transform(rows[1]).toarray(), kin)

    val = None if splits.val is None else told(splits.val)
    return matching_baseline(Splits(told(splits.train), told(splits.test), val), "TF-IDF", name)


WORDS = 8000  # words and pairs that a text is described by at most


@dataclass
class Partners:
    """Features of partners, [n, e]; kin: Int[n], the same where two are one, so that either is found as well."""

    rows: np.ndarray
    kin: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Partners:
        """Those are one that have the same features."""
        return cls(rows, np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray) -> Partners:
        return Partners(self.rows[chosen], self.kin[chosen])


def matching_baseline(
    splits: Splits,
    what: str = "features",
    name: str = "",
) -> Result:
    """R@1 of ridge regression from x [n, d] to the `Partners` y, ranked by cosine; both directions.

    Of several that are equally like, each is as good as taken by chance.
    """
    from sklearn.linear_model import Ridge

    train, test = (dense(splits.train[0]), splits.train[1]), (dense(splits.test[0]), splits.test[1])
    val = None if splits.val is None else (dense(splits.val[0]), splits.val[1])
    centre, scale = train[0].mean(0), train[0].std() + 1e-9
    (x_fit, y_fit), (x_val, told) = Splits(train, test, val).to_choose()

    def found(model: Any, x: np.ndarray, partners: Partners) -> tuple[float, float]:
        guess = unit(model.predict((x - centre) / scale))
        likeness, same = guess @ unit(partners.rows).T, partners.kin[:, None] == partners.kin
        best = [likeness >= likeness.max(axis, keepdims=True) - ROUNDING for axis in (1, 0)]
        forth, back = ((same & one).sum(axis) / one.sum(axis) for one, axis in zip(best, (1, 0), strict=True))
        return float(forth.mean()), float(back.mean())

    fitted, left_out = {}, []
    for a in RIDGE:
        try:
            clock().begin()
            fitted[a] = Ridge(a).fit((x_fit - centre) / scale, y_fit.rows)
        except OutOfTime:
            if not fitted:
                raise
            left_out.append(f"alpha={a:g}")
    alpha, model = max(fitted.items(), key=lambda item: sum(found(item[1], x_val, told)))
    forth, back = found(model, *test)
    said = Choice(f"ridge regression to {what} alpha={alpha:g}", model, left_out).said
    return {**result_of(name, "R@1", forth, 1 / len(test[1]), said, len(test[1])), "value_reverse": back}


ROUNDING = 1e-6  # cosines nearer to one another are one


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)


def dense(x: Matrix) -> np.ndarray:
    return x.toarray() if issparse(x) else x


def rmse(guess: Any, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((guess - truth) ** 2)))


def result_of(
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
