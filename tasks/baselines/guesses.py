"""What a fitted ordinary method says of each record, as log p over a task's candidates: to be combined with a model's.

The methods and features are those of `tasks.baselines.methods` and `tasks.baselines.plain`, fitted on training
records only and chosen on validation records. With `refit` the chosen one is then fitted on both together, and says
with that what is asked besides validation records. Nothing of them is saved: a method is fitted again from its name,
with fixed seeds, on the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.data.stream.source import Record, Records
from generalist.tasks.baselines.budget import clock
from generalist.tasks.baselines.choice import ROWS, Choice, Method, Rows, across, choose, refitted
from generalist.tasks.baselines.methods import RIDGE, classifiers, dense, regressors, rmse, unit
from generalist.tasks.baselines.plain import sides
from generalist.tasks.candidates.names import Numbers

LEAST = 1e-3  # of the probability goes evenly to all candidates: no method is surer than that
Modalities = Any  # {name: Modality}
LEFT_OUT = " (not in "  # what `Choice.said` says behind a method's name


@dataclass
class Guessed:
    """name: of the method; log_p: Float[n ... K] of the validation records, then of each of those asked.

    refit: whether those asked are answered by the method fitted on validation records too.
    """

    name: str
    log_p: list[np.ndarray]
    refit: bool = False


Tell = Callable[[Record], Any]


def _features(
    inputs: dict[str, str], train: Records, others: Sequence[Records], modalities: Modalities
) -> tuple[list, bool]:
    return sides(train, list(others), list(inputs.values()), [modalities.get(name) for name in inputs])


def _told(records: Records, tell: Tell) -> np.ndarray:
    return np.array([tell(records[i]) for i in range(len(records))])


def _chosen(methods: list[Method], method: str, x: list, y: np.ndarray, y_val: np.ndarray) -> Choice:
    """The method of this name, or without one the best on validation data."""
    name = method.partition(LEFT_OUT)[0]
    return choose([m for m in methods if name in ("", m.name)], x[0], y, x[1], y_val)


def classes(
    inputs: dict[str, str],
    tell: Tell,
    count: int,
    train: Records,
    val: Records,
    asked: Sequence[Records],
    modalities: Modalities,
    method: str = "",
    refit: bool = False,
) -> Guessed:
    """log p of `count` classes. tell: a record's class as a number."""
    x, trees = _features(inputs, train, [val, *asked], modalities)
    y, y_val = _told(train, tell), _told(val, tell)
    chosen = _chosen(classifiers(x[0], len(np.unique(y)), trees), method, x, y, y_val)
    sharp = _sharpness(chosen, (x[0], y), (x[1], y_val))
    told = _log_p(chosen.model, x[1], count, sharp)
    model = refitted(chosen, [(x[0], y), (x[1], y_val)]) if refit else chosen.model
    return Guessed(chosen.name, [told, *(_log_p(model, part, count, sharp) for part in x[2:])], refit)


def _sharpness(chosen: Choice, train: Rows, val: Rows) -> float:
    """How many times the scores of a decision function are log-odds: of the least -log p of answers it has not seen.

    Those are the validation rows, or where they are few all rows across folds. 1 of a method that says probabilities.
    """
    from scipy.optimize import minimize_scalar

    if _says_p(chosen.model):
        return 1.0
    held = [(chosen.model, *val)] if len(val[1]) >= ROWS else across(chosen, [train, val])
    told = []
    for model, x, y in held:
        known = np.isin(y, model.classes_)
        told.append((_scores(model, x)[known], np.searchsorted(model.classes_, y[known])))

    def misfit(log_sharp: float) -> float:
        total = 0.0
        for scores, place in told:
            z = np.exp(log_sharp) * scores
            z = z - z.max(1, keepdims=True)
            total -= float((z[np.arange(len(z)), place] - np.log(np.exp(z).sum(1))).sum())
        return total

    return float(np.exp(minimize_scalar(misfit, bounds=(-3.0, 3.0), method="bounded").x))


def _says_p(model: Any) -> bool:
    return hasattr(model, "predict_proba")  # scikit-learn's own way of saying what a method can do


def _scores(model: Any, x: Any) -> np.ndarray:
    """Float[n classes]: the larger, the likelier."""
    score = model.decision_function(x)
    return np.stack([-score, score], 1) / 2 if score.ndim == 1 else score


def _log_p(model: Any, x: Any, count: int, sharp: float = 1.0) -> np.ndarray:
    """Float[n count]; a class that training rows lack has what all have at least. sharp: times a model's scores."""
    if _says_p(model):
        own = model.predict_proba(x)
    else:
        score = sharp * _scores(model, x)
        own = np.exp(score - score.max(1, keepdims=True))
        own = own / own.sum(1, keepdims=True)
    p = np.full((own.shape[0], count), LEAST / count)
    p[:, np.asarray(model.classes_, dtype=int)] += (1 - LEAST) * own
    return np.log(p)


def numbers(
    inputs: dict[str, str],
    tell: Tell,
    among: Numbers,
    train: Records,
    val: Records,
    asked: Sequence[Records],
    modalities: Modalities,
    method: str = "",
    refit: bool = False,
) -> Guessed:
    """A normal distribution around the predicted value, as wide as the validation error, over the bins of `among`."""
    x, _ = _features(inputs, train, [val, *asked], modalities)
    y, y_val = _told(train, tell).astype(float), _told(val, tell).astype(float)
    chosen = _chosen(regressors(x[0]), method, x, y, y_val)
    error = max(rmse(chosen.model.predict(x[1]), y_val), 1e-6 * among.std)
    edges = np.array(among.edges) * among.std + among.mean
    centres = (edges[1:] + edges[:-1]) / 2

    def spread(model: Any, part: Any) -> np.ndarray:
        score = -((centres - np.asarray(model.predict(part))[:, None]) ** 2) / (2 * error**2)
        score = score - score.max(1, keepdims=True)
        return score - np.log(np.exp(score).sum(1, keepdims=True))

    told = spread(chosen.model, x[1])
    model = refitted(chosen, [(x[0], y), (x[1], y_val)]) if refit else chosen.model
    return Guessed(chosen.name, [told, *(spread(model, part) for part in x[2:])], refit)


@dataclass
class Matched:
    """How like the partner of each record a method's guess of it is: cosines, Float[n n] of val and of test records."""

    name: str
    likeness: list[np.ndarray]


def pairs(
    inputs: dict[str, str],
    partners: dict[str, str],
    train: Records,
    val: Records,
    test: Records,
    modalities: Modalities,
) -> Matched:
    """Ridge regression from the features of one side to those of the other, its strength by recall on val."""
    from sklearn.linear_model import Ridge

    x, _ = _features(inputs, train, [val, test], modalities)
    y, _ = _features(partners, train, [val, test], modalities)
    x, y = [dense(part) for part in x], [dense(part) for part in y]
    x = [(part - x[0].mean(0)) / (x[0].std() + 1e-9) for part in x]
    y = [(part - y[0].mean(0)) / (y[0].std(0) + 1e-9) for part in y]
    best: tuple[float, float, list[np.ndarray]] | None = None
    for alpha in RIDGE:
        clock().begin()
        model = Ridge(alpha).fit(x[0], y[0])
        likeness = [unit(model.predict(a)) @ unit(b).T for a, b in zip(x[1:], y[1:], strict=True)]
        across = np.arange(len(likeness[0]))
        found = sum(float((likeness[0].argmax(axis) == across).mean()) for axis in (0, 1))
        if best is None or found > best[0]:
            best = found, alpha, likeness
    assert best is not None
    return Matched(f"ridge regression alpha={best[1]:g}", best[2])


def marks(
    inputs: dict[str, str],
    tell: Tell,
    train: Records,
    val: Records,
    asked: Sequence[Records],
    modalities: Modalities,
) -> Guessed:
    """log p of every name, then of its denial, by a logistic regression for each name."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, _ = _features(inputs, train, [val, *asked], modalities)
    y = _told(train, tell)
    found = [np.empty((part.shape[0], y.shape[1])) for part in x[1:]]
    for number in range(y.shape[1]):
        share = float(y[:, number].mean())
        model = None
        if 0 < share < 1:
            model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=200))
            model.fit(x[0], y[:, number])
        for p, part in zip(found, x[1:], strict=True):
            p[:, number] = share if model is None else model.predict_proba(part)[:, 1]
    smooth = [LEAST / 2 + (1 - LEAST) * p for p in found]
    return Guessed("a logistic regression for each name", [np.log(np.concatenate([p, 1 - p], 1)) for p in smooth])
