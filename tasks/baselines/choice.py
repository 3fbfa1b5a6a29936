"""Which of many ordinary methods is taken: the best on validation data, or across folds where these are few."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import issparse, vstack

from generalist.tasks.baselines.budget import OutOfTime, clock

Matrix = Any  # Float[n d], dense or sparse by rows
Rows = tuple[Matrix, Any]  # features [n, d] of some rows, and their answers
RATE = 1e9  # multiplications a processor second that a solver is trusted to do
ROWS, FOLDS = 150, 5  # validation rows, below which methods are cross-validated over so many folds


@dataclass
class Method:
    """make: an unfitted estimator; work: multiplications that fitting takes, roughly (0 = next to none)."""

    name: str
    make: Callable[[], Any]
    work: float = 0.0


@dataclass
class Choice:
    """The fitted method with the best validation score, and the methods that the budget left out."""

    name: str
    model: Any
    left_out: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The method, and what did not fit."""
        if not self.left_out:
            return self.name
        shown = ", ".join(self.left_out[:3]) + (" ..." if len(self.left_out) > 3 else "")
        return f"{self.name} (not in {clock().seconds:g} processor seconds: {shown})"


def choose(methods: list[Method], x: Matrix, y: Any, x_val: Matrix, y_val: Any) -> Choice:
    """The fitted method with the best validation score, the first of equals, among those that the budget allows.

    Where the best is looked for (`budget`) and validation rows are few, by cross-validation over all rows: the best of
    many on a few rows is the luckiest. OutOfTime when the budget allows none.
    """
    best, kept, left_out = -float("inf"), None, []
    over, crossed = False, clock().strong and len(methods) > 1 and len(y_val) < ROWS
    times = FOLDS + 1 if crossed else 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")  # a baseline need not be exact
        warnings.filterwarnings("ignore", message="Liblinear failed to converge")
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        warnings.filterwarnings("ignore", message="An ill-conditioned matrix detected")
        for method in methods:
            if over or (kept is not None and times * method.work / RATE > clock().left):
                left_out.append(method.name)
                continue
            model = None
            try:
                clock().begin()
                model = method.make().fit(x, y)
                score = _crossed(method, [(x, y), (x_val, y_val)]) if crossed else model.score(x_val, y_val)
            except OutOfTime:
                if kept is None and model is None:
                    raise
                over = True
                if kept is None:  # the only one there is, fitted though not scored to the end
                    kept = (method.name, model)
                else:
                    left_out.append(method.name)
                continue
            if score > best:
                best, kept = score, (method.name, model)
    if kept is None:
        raise ValueError("no method has a validation score")
    return Choice(*kept, left_out)


def _crossed(method: Method, rows: Sequence[Rows]) -> float:
    """The mean score over folds of all rows."""
    return float(np.mean([model.score(x, y) for model, x, y in _folds(method.make, rows)]))


def across(chosen: Choice, rows: Sequence[Rows]) -> list[tuple[Any, Matrix, Any]]:
    """The chosen method fitted on all rows but a fold, and the fold's features and answers, for every fold."""
    from sklearn.base import clone

    return list(_folds(lambda: clone(chosen.model), rows))


def _folds(make: Callable[[], Any], rows: Sequence[Rows]) -> Iterator[tuple[Any, Matrix, Any]]:
    """Each class is spread over the folds, where it has enough rows."""
    from sklearn.model_selection import KFold, StratifiedKFold

    x, y = _together(rows)
    classes = y.dtype.kind in "iub"
    folds = min([FOLDS, len(y), *(np.bincount(y)[np.unique(y)] if classes else ())])
    kind = StratifiedKFold if classes and folds > 1 else KFold
    for fit, held in kind(max(2, folds), shuffle=True, random_state=0).split(np.zeros(len(y)), y):
        clock().check()
        if not classes or len(np.unique(y[fit])) > 1:
            yield make().fit(x[fit], y[fit]), x[held], y[held]


def _together(rows: Sequence[Rows]) -> Rows:
    x, y = zip(*rows, strict=True)
    return vstack(x, format="csr") if issparse(x[0]) else np.concatenate(x), np.concatenate(y)


def refitted(chosen: Choice, rows: Sequence[Rows]) -> Any:
    """The chosen method fitted again on these rows together: what is chosen may learn from what chose it.

    As it was chosen where the budget ends meanwhile.
    """
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # a baseline need not be exact
        warnings.filterwarnings("ignore", message="An ill-conditioned matrix detected")
        try:
            return clone(chosen.model).fit(*_together(rows))
        except OutOfTime:
            return chosen.model
