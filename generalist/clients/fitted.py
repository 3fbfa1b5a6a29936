"""`generalist.fit` behind scikit-learn's and sktime's interfaces: rows as tables in files, a run's folder, its answers.

GeneralistForecaster(horizon=24, time="1m").fit(y).predict()        # y: a series or frame, the next 24 steps
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import acts_as
from generalist.fitting.api import Fitted, fit, written

ANSWER = "the answer"  # the column that holds y
TIME = "the time"


def fit_rows(rows: list[dict[str, Any]], answers: Sequence[Any], answer: str, time: Any, out: Any, seed: Any) -> Fitted:
    """Rows of columns and their answers through `generalist.fit`. answer: "classes" or "number"."""
    table = [row | {ANSWER: value} for row, value in zip(rows, answers, strict=True)]
    number = int(check_random_state(seed).randint(2**31 - 1))
    return fit(frame(table), label=ANSWER, answer=answer, time=time, out=folder(out), seed=number, overwrite=True)


def frame(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows)


def folder(out: Any) -> Path:
    """The run's folder; a new one among the temporary files where none is named."""
    return Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="generalist-")) / "run"


class GeneralistForecaster(BaseEstimator):
    """The next steps of one series or of several, by `generalist.fit` with its baseline beside it.

    horizon: steps ahead that are learnt; time: how long that may take, "1m" or seconds; out: the run's folder (without
    one it lies among the temporary files, which a copy on another machine has not); random_state: of the weights.
    sktime's interface: fit(y, fh=...), predict(fh), predict_quantiles, predict_interval; fh counts steps from the end.
    """

    def __init__(self, horizon: int = 1, time: str | float = "1m", out: Any = None, random_state: Any = 0) -> None:
        self.horizon = horizon
        self.time = time
        self.out = out
        self.random_state = random_state

    def fit(self, y: Any, X: Any = None, fh: Any = None) -> GeneralistForecaster:
        """y: pandas Series or DataFrame (a column a series), or an array [t] or [t, series], the oldest first."""
        if X is not None:
            raise UserError("GeneralistForecaster reads the series themselves; leave X out")
        steps = _steps(fh, self.horizon)
        self.y_, self.names_ = _columns(y)
        self.kind_ = type(y).__name__ if acts_as(y, "index") else "array"
        self.index_ = getattr(y, "index", None)
        self.name_ = getattr(y, "name", None)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.horizon_ = max(steps)
        run = fit(
            self._table(), forecast=self.horizon_, date=self._clock(), time=self.time, out=folder(self.out), seed=seed,
            overwrite=True,
        )  # fmt: skip
        self.path_, self.fh_ = str(run.path), steps
        return self

    def _clock(self) -> str:
        return TIME if type(self.index_).__name__ in ("DatetimeIndex", "PeriodIndex") else ""

    def _table(self) -> Any:
        import pandas

        found = pandas.DataFrame(self.y_, columns=self.names_)
        if self._clock():
            stamps = self.index_.to_timestamp() if isinstance(self.index_, pandas.PeriodIndex) else self.index_
            found.insert(0, TIME, stamps)
        return found

    def _said(self, fh: Any) -> tuple[list[int], dict[str, np.ndarray]]:
        """The steps asked for, and {"answer", "low", "high": Float[steps, series]} of them."""
        check_is_fitted(self, "path_")
        steps = self.fh_ if fh is None else _steps(fh, self.horizon_)
        if max(steps) > self.horizon_:
            raise UserError(f"fh={max(steps)}: this forecaster learnt {self.horizon_} steps; fit it with a larger one")
        with tempfile.TemporaryDirectory() as scratch:
            run = Fitted(Path(self.path_))
            found = run.answers(written(self._table(), Path(scratch) / "rows.parquet"))
        if wrong := next((one for one in found if "error" in one), None):
            raise UserError(f"series {wrong['id']}: {wrong['error']}")
        at = {(str(one["id"]), one["step"]): one for one in found}
        return steps, {
            kind: np.array([[at[name, step][kind] for name in self.names_] for step in steps])
            for kind in ("answer", "low", "high")
        }

    def predict(self, fh: Any = None, X: Any = None) -> Any:
        """The median of every step asked for, of the kind that y was."""
        steps, found = self._said(fh)
        return self._like(found["answer"], steps)

    def predict_interval(self, fh: Any = None, X: Any = None, coverage: float = 0.8) -> Any:
        """A frame with columns (series, coverage, "lower" and "upper"), as sktime has it. coverage: 0.8, as learnt."""
        import pandas

        levels = [coverage] if isinstance(coverage, float) else list(coverage)
        if levels != [0.8]:
            raise UserError(f"coverage={coverage}: the interval that is told holds 0.8")
        steps, found = self._said(fh)
        columns, values = [], []
        for i, name in enumerate(self.names_):
            for side, kind in (("lower", "low"), ("upper", "high")):
                columns.append((name, 0.8, side))
                values.append(found[kind][:, i])
        return pandas.DataFrame(
            np.stack(values, 1), index=self._ahead(steps), columns=pandas.MultiIndex.from_tuples(columns)
        )

    def _like(self, values: np.ndarray, steps: list[int]) -> Any:
        import pandas

        if self.kind_ == "array":
            return values[:, 0] if self.y_.ndim == 1 or self.y_.shape[1] == 1 else values
        index = self._ahead(steps)
        if self.kind_ == "Series":
            return pandas.Series(values[:, 0], index=index, name=self.name_)
        return pandas.DataFrame(values, index=index, columns=self.names_)

    def _ahead(self, steps: list[int]) -> Any:
        """The index of the steps ahead, of the kind that y's was."""
        import pandas

        index = self.index_
        if index is None:
            return pandas.RangeIndex(len(self.y_), len(self.y_) + max(steps))[[s - 1 for s in steps]]
        if acts_as(index, "to_timestamp"):
            return pandas.PeriodIndex([index[-1] + s for s in steps])
        if self._clock():
            return pandas.DatetimeIndex([index[-1] + s * (index[-1] - index[-2]) for s in steps])
        return pandas.Index([index[-1] + s * (index[-1] - index[-2]) for s in steps])


def _steps(fh: Any, usual: int) -> list[int]:
    """Steps ahead as numbers from 1 on. None: all up to `usual`."""
    if fh is None:
        return list(range(1, int(usual) + 1))
    numbers = [fh] if isinstance(fh, int | np.integer) else list(fh)
    if not numbers or any(int(n) != n or n < 1 for n in numbers):
        raise UserError(f"fh={fh!r}: steps ahead are whole numbers of at least 1")
    return [int(n) for n in numbers]


def _columns(y: Any) -> tuple[np.ndarray, list[str]]:
    """Float[t, series] and the names of the series."""
    values = np.asarray(y, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if acts_as(y, "columns"):
        return values, [str(c) for c in y.columns]
    name = getattr(y, "name", None)
    return values, [str(name)] if values.shape[1] == 1 and name is not None else [
        f"y{i}" for i in range(values.shape[1])
    ]
