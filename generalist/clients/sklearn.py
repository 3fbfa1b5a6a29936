"""scikit-learn estimators of the model: rows of a table or whole series in, classes or values out.

    GeneralistClassifier(steps=300).fit(X, y).predict_proba(X)
    GeneralistClassifier(time="1m").fit(X, y)        # as `generalist.fit` decides, validated, calibrated

Arrays and data frames; missing values are tokens of their own, and text columns of a data frame are categories. Both
are the same likelihood: classes are ranked by name, values by number tokens (`generalist.tasks.kinds.classify`,
`generalist.tasks.kinds.regress`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from generalist.clients.fitted import GeneralistForecaster, fit_rows, frame
from generalist.data.base.errors import UserError, nearest
from generalist.data.base.foreign import acts_as
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Feed, Steps, loader
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.ask import likelihoods
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import Numbers
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.regress import Regress
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.train.engines.local import LocalEngine
from generalist.train.loop import train
from generalist.train.optimizer import parameter_groups

__all__ = ["GeneralistClassifier", "GeneralistForecaster", "GeneralistRegressor"]


def _table_rows(x: Any) -> list[dict[str, Any]]:
    names = [str(c) for c in x.columns] if acts_as(x, "columns") else [f"x{i}" for i in range(x.shape[1])]
    columns = [np.asarray(x[c]).tolist() for c in x.columns] if acts_as(x, "columns") else x.T.tolist()
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _series_rows(x: Any) -> list[np.ndarray]:
    return list(np.asarray(x, dtype=np.float64))


# what a row of X is -> (its modality, how X becomes raw samples)
INPUTS: dict[str, tuple[Callable[[], Modality], Callable[[Any], list[Any]]]] = {
    "table": (Table, _table_rows),
    "series": (Series, _series_rows),
}
BATCH = 256  # rows encoded at once in prediction


class _Estimator(BaseEstimator):
    """What both share. input: "table" (columns) or "series" (time steps); width, layers, heads: of the encoder.

    steps, batch, lr, weight_decay: of the training (AdamW, cosine); random_state: seed of weights and order.
    time: instead of all these sizes, how long `generalist.fit` may take to decide and train, "1m" or seconds; out: its
    run's folder (without one it lies among the temporary files, which a copy on another machine has not).
    """

    def __init__(
        self,
        input: str = "table",
        width: int = 48,
        layers: int = 2,
        heads: int = 4,
        steps: int = 300,
        batch: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        random_state: Any = None,
        time: str | float | None = None,
        out: Any = None,
    ) -> None:
        self.input = input
        self.width = width
        self.layers = layers
        self.heads = heads
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.time = time
        self.out = out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def _inputs(self) -> tuple[Callable[[], Modality], Callable[[Any], list[Any]]]:
        if self.input not in INPUTS:
            raise UserError(f"input={self.input!r}; {nearest(self.input, INPUTS)} (valid: {', '.join(INPUTS)})")
        return INPUTS[self.input]

    def _checked(self, x: Any, **words: Any) -> Any:
        """X (and y) as scikit-learn checks them; a frame with columns of words keeps them."""
        if acts_as(x, "columns") and any(dtype.kind not in "fiub" for dtype in getattr(x.dtypes, "array", x.dtypes)):
            return validate_data(self, x, skip_check_array=True, **words)
        return validate_data(self, x, dtype=np.float64, ensure_all_finite="allow-nan", **words)

    def _fit_rows(self, x: Any, y: list[Any], answer: str) -> None:
        """Through `generalist.fit`; the run's folder is kept by its name."""
        self.run_ = fit_rows(self._rows(x), y, answer, self.time, self.out, self.random_state)
        self.n_iter_ = int(self.run_.metrics["steps"])

    def _rows(self, x: Any) -> list[dict[str, Any]]:
        found = self._inputs()[1](x)
        return found if self.input == "table" else [{"series": row.tolist()} for row in found]

    def _learn(self, task: Task, modalities: dict[str, Modality], x: Any, y: list[Any]) -> None:
        make, rows = self._inputs()
        records = Records(
            [{"id": str(i), "x": a, "y": b} for i, (a, b) in enumerate(zip(rows(x), y, strict=True))],
            {"classes": vars(self).get("names_")},
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        modalities = {"summary": Summary(), self.input: make(), **modalities}
        for name, modality in modalities.items():
            modality.called(name)
        task.learn(modalities, records)
        for modality in modalities.values():
            modality.learn_texts(list(task.texts(records)))
        task.bind(modalities, None, records.info)
        task.adopt(task.candidate_set(records))
        assert task.candidates is not None
        self.modalities_, self.task_ = modalities, task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = GeneralistModel(
                GeneralistConfig(
                    hidden_size=self.width,
                    num_hidden_layers=self.layers,
                    num_attention_heads=self.heads,
                    intermediate_size=4 * self.width,
                    modalities=modality_settings(modalities),
                    scales=[task.scale],
                    tasks=[task.name],
                    task_sides={task.name: task.sides()},
                )
            )
            objective = Objective(model, {task.name: task.candidates}, modalities)
            optimizer = torch.optim.AdamW(parameter_groups(objective, self.weight_decay), self.lr, (0.9, 0.98))
            batch = min(self.batch, len(records))
            schedule = Schedule([task.name], [1.0], seed)
            steps = Steps({task.name: Feed(records, task.example, task.collate, batch)}, schedule, seed)
            engine = LocalEngine(objective, optimizer, torch.device("cpu"), clip=1.0)
            warmup = max(1, self.steps // 10)
            train(engine, loader(steps, 0, self.steps), {task.name: task}, schedule, 0, self.steps, self.lr, warmup)
        self.model_ = model.eval()
        self.n_iter_ = self.steps

    def _log_p(self, x: Any) -> torch.Tensor:
        """log p of every candidate for every row: Float[n K]."""
        check_is_fitted(self, "model_")
        records = [{"x": row} for row in self._inputs()[1](self._checked(x, reset=False))]
        return torch.cat([log_p for log_p, _ in likelihoods(self.model_, self.task_, records, BATCH)])


class GeneralistClassifier(ClassifierMixin, _Estimator):
    """Classes ranked by their names, as text. classes_: the classes in order."""

    def fit(self, X: Any, y: Any) -> GeneralistClassifier:
        x, y = self._checked(X, y=y)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs at least two classes, the data holds one class: {self.classes_[0]!r}")
        self.names_ = [f"class {c}" for c in self.classes_]
        if self.time is not None:
            self._fit_rows(x, [self.names_[i] for i in index], "classes")
            return self
        task = Classify(name="fit", inputs={self.input: "x"}, label="y", classes=self.names_, templates=[])
        self._learn(task, {"text": Text(tokenizer="", learn=300, max_length=32, positions=32)}, x, index.tolist())
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """float [n, classes]."""
        check_is_fitted(self, "n_iter_")
        if self.time is None:
            return self._log_p(X).double().numpy()
        found = self.run_.predict_proba(frame(self._rows(self._checked(X, reset=False))))
        at = {name: i for i, name in enumerate(self.run_.classes)}
        p = np.stack([found[:, at[name]] if name in at else np.zeros(len(found)) for name in self.names_], 1)
        return np.log(np.maximum(p, np.finfo(float).tiny))

    def predict_proba(self, X: Any) -> np.ndarray:
        """float [n, classes]; rows sum to one."""
        p = np.exp(self.predict_log_proba(X))
        return p / p.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of every row: [n]."""
        log_p = self.predict_log_proba(X)
        return self.classes_[log_p.argmax(1)]


class GeneralistRegressor(RegressorMixin, _Estimator):
    """Values as a distribution over number tokens; `predict` gives its mean, `predict_quantile` the rest."""

    def fit(self, X: Any, y: Any) -> GeneralistRegressor:
        x, y = self._checked(X, y=y, y_numeric=True)
        values = np.asarray(y, dtype=np.float64)
        self.constant_ = float(values[0]) if np.ptp(values) == 0 else None
        if self.constant_ is None and self.time is not None:
            self._fit_rows(x, values.tolist(), "number")
        elif self.constant_ is None:
            task = Regress(name="fit", inputs={self.input: "x"}, target="y")
            self._learn(task, {"number": Number()}, x, values.tolist())
        else:  # nothing to learn from equal targets
            self.n_iter_ = 0
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The distribution's mean for every row, in the target's unit: float [n]."""
        check_is_fitted(self, "n_iter_")
        if self.time is not None and self.constant_ is None:
            return self.run_.predict(frame(self._rows(self._checked(X, reset=False))))
        return self._read(X, lambda log_p: self.task_.among_kind(Numbers).expectation(log_p))

    def predict_quantile(self, X: Any, q: float = 0.5) -> np.ndarray:
        """The q-quantile of every row's distribution: float [n]."""
        return self._read(X, lambda log_p: self.task_.among_kind(Numbers).quantile(log_p, q))

    def _read(self, x: Any, read: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        check_is_fitted(self, "n_iter_")
        if self.constant_ is not None:
            return np.full(len(self._checked(x, reset=False)), self.constant_)
        if self.time is not None:
            raise UserError(
                "with time= only median and 80 % interval are told; ask generalist.fit's folder, or use steps="
            )
        numbers = self.task_.among_kind(Numbers)
        return read(self._log_p(x)).double().numpy() * numbers.std + numbers.mean
