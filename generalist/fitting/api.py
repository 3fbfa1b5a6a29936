"""`generalist.fit(frame_or_path, label="price")`: the same from Python, and what it gives back."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.sources.tabular import from_frame
from generalist.fitting.parts import Ask
from generalist.fitting.predict import Asked
from generalist.fitting.run import fit as fit_asks
from generalist.fitting.run import named
from generalist.run.folder import check_free
from generalist.run.results import table


class Fitted:
    """A finished run. path: its folder; metrics: what metrics.json holds; `Fitted(path)` has it again later."""

    def __init__(self, path: Path, task: str = "", model_only: bool = False) -> None:
        self.path, self._task, self._model_only = Path(path), task, model_only

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    @cached_property
    def _asked(self) -> Asked:
        return Asked(self.path, self._task, self._model_only)

    @property
    def classes(self) -> list[str]:
        """The names that are chosen among, in the order of `predict_proba`. UserError of a number."""
        chosen = self._asked.task.candidates
        if chosen is None or not chosen.choices():
            raise UserError(f"task {self._asked.task.name} answers with numbers and has no classes")
        return chosen.choices()

    def task(self, name: str) -> Fitted:
        """The same run, asked as this task of several."""
        return Fitted(self.path, name, self._model_only)

    def answers(self, rows: Any) -> list[dict[str, Any]]:
        """Everything said of each row of a data frame or file: answer, probabilities or interval, error."""
        return self._asked.answers(self._asked.records(rows))

    def predict(self, rows: Any) -> np.ndarray:
        """The answer of every row: class names, texts of names, numbers (the mean). UserError: an unreadable row."""
        found = self.answers(rows)
        for number, one in enumerate(found):
            if "error" in one:
                raise UserError(f"row {number}: {one['error']}")
        return np.array([one["answer"] for one in found])

    def predict_proba(self, rows: Any) -> np.ndarray:
        """float [n, classes] in the order of `classes`; NaN where a row cannot be read."""
        _ = self.classes
        chosen = self._asked.task.candidates
        assert chosen is not None
        log_p, _ = self._asked.log_p(self._asked.records(rows))
        return chosen.shares(log_p.double()).numpy()

    def report(self) -> str:
        """The held-out table."""
        return table(self.metrics)

    def __repr__(self) -> str:
        return f"Fitted({str(self.path)!r})\n{self.report()}"


def fit(
    data: Any,
    label: str = "",
    *,
    test: Any = None,
    forecast: int = 0,
    date: str = "",
    group: str = "",
    retrieve: tuple[str, str] | None = None,
    detect: bool = False,
    answer: str = "",
    time: str | float = 600.0,
    out: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = True,
    baseline: bool = True,
    model_only: bool = False,
    encoders: bool = True,
) -> Fitted:
    """Learn a label, a forecast, a retrieval or objects from a data frame, a table's file, a folder or coco:FOLDER.

    answer: what the label is taken for, "classes", "names" (several a row) or "number"; by its values where not said.
    time: seconds, or "90s", "10m", "2h". A frame is written into the run's folder (rows.parquet), so that its
    recipe.py stands alone. UserError says in one line what is wrong with the data.
    """
    ask = Ask("", label, "", forecast, date, group, tuple(retrieve or ()), detect, answer)
    ask.data = str(data) if isinstance(data, str | Path) else "rows.parquet"
    folder = Path(out) if out is not None else Path("runs") / named([ask])
    check_free(folder, overwrite)
    if not isinstance(data, str | Path):
        ask.data = written(data, folder / "rows.parquet")
    if test is not None:
        ask.test = str(test) if isinstance(test, str | Path) else written(test, folder / "rows_test.parquet")
    seconds = time if isinstance(time, int | float) else seconds_of(time)
    fit_asks([ask], seconds, folder, seed, overwrite, quiet, baseline, model_only, encoders)
    return Fitted(folder)


def written(frame: Any, path: Path) -> str:
    """A data frame as Parquet. UserError where it cannot be one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = from_frame(frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the data frame cannot be written to {path} ({str(error).splitlines()[0]})") from error
    return str(path)


def seconds_of(word: str) -> float:
    """ "90s", "10m", "2h" or a number of seconds. UserError for another word or less than a second."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", word.strip().lower())
    seconds = float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if seconds < 1:
        raise UserError(f"time {word!r}: give one such as 90s, 10m or 2h")
    return seconds
