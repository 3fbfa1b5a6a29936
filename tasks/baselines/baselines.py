"""What ordinary methods reach on the same splits: measured in the same run as the model, seeds fixed.

Every function returns one flat dict: name, metric, better ("higher" or "lower"), value (the baseline's),
chance (of a guess that ignores the input), baseline (which method), n_test. Where there are several
methods or strengths the choice is made on validation data, or without any on a fifth of the training
data, never on test data. Inputs are read by their modality (`tasks.baselines.plain`), whatever form they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse

from generalist.data.stream.source import Record, Records
from generalist.tasks.baselines import features
from generalist.tasks.baselines.budget import clock
from generalist.tasks.baselines.methods import (
    Partners,
    Result,
    Splits,
    classification_baseline,
    dense,
    matching_baseline,
    regression_baseline,
    result_of,
    retrieval_baseline,
)
from generalist.tasks.baselines.naive import (
    Window,
    forecasting_baseline,
    linear_forecast,
    masked_word_baseline,
    scaled_mae,
)
from generalist.tasks.baselines.plain import sides
from generalist.tasks.measures import marks
from generalist.tokenizers_mod.base.base import Modality

__all__ = [
    "Result",
    "classification",
    "classification_baseline",
    "forecasting",
    "forecasting_baseline",
    "linear_forecast",
    "masked_word_baseline",
    "regression",
    "regression_baseline",
    "retrieval",
    "retrieval_baseline",
    "scaled_mae",
]

Modalities = Mapping[str, Modality]
Parts = list[Records | None]  # train, test and, where there is one, val


def classification(
    inputs: dict[str, str],
    label: str | Callable[[Record], Any],
    train: Records,
    val: Records | None,
    test: Records,
    name: str = "",
    modalities: Modalities | None = None,
) -> Result:
    """A linear classifier (or boosted trees) on simple features of the inputs.

    label: the field, or what tells a record's class. Records without one are left out.
    """
    tell = label if callable(label) else lambda record: record[label]
    parts, answers = _answered([train, test, val], tell)
    told = [np.array(answer) for answer in answers]
    codes = np.unique(np.concatenate([t for t in told if len(t)]), return_inverse=True)[1]  # names and numbers alike
    y = np.split(codes, np.cumsum([len(t) for t in told])[:-1])
    x, boosting = _sides(inputs, parts, modalities)
    return classification_baseline(Splits.of(x, y), boosting, name)


def multilabel(
    inputs: dict[str, str],
    tell: Callable[[Record], Any],
    train: Records,
    test: Records,
    name: str = "",
    modalities: Modalities | None = None,
) -> Result:
    """mAP of a logistic regression for each name on simple features of the inputs. tell: a record's 0 or 1 a name."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parts, answers = _answered([train, test], tell)
    y = [np.array(answer) for answer in answers]
    x, _ = _sides(inputs, parts, modalities)
    clock().begin()
    found, shares = [], []
    for number in range(y[0].shape[1]):
        fit, asked = y[0][:, number], y[1][:, number]
        if not asked.any():
            continue
        p = np.full(len(asked), fit.mean())
        if 0 < fit.mean() < 1:
            model = make_pipeline(StandardScaler(with_mean=not issparse(x[0])), LogisticRegression(max_iter=200))
            p = model.fit(x[0], fit).predict_proba(x[1])[:, 1]
        found.append(float(marks.average_precision(asked, p, np.ones((1, len(p))))[0]))
        shares.append(float(asked.mean()))
        clock().check()
    return result_of(
        name, "mAP", float(np.mean(found)), float(np.mean(shares)), "a logistic regression for each name", len(y[1])
    )


def regression(
    inputs: dict[str, str],
    target: str | Callable[[Record], Any],
    train: Records,
    val: Records | None,
    test: Records,
    name: str = "",
    modalities: Modalities | None = None,
) -> Result:
    """Ridge regression or gradient boosting on simple features of the inputs. Records without a target are left out."""
    tell = target if callable(target) else lambda record: record[target]
    parts, answers = _answered([train, test, val], tell)
    y = [np.array(answer, dtype=float) for answer in answers]
    x, _ = _sides(inputs, parts, modalities)
    return regression_baseline(Splits.of(x, y), name)


def retrieval(
    inputs: dict[str, str],
    partners: str | dict[str, str],
    train: Records,
    val: Records | None,
    test: Records,
    name: str = "",
    modalities: Modalities | None = None,
) -> Result:
    """Ridge regression from simple features to the partners'; the mean of both directions over all of `test`.

    partners: the field of a text, or {modality: field}; one text is described by its TF-IDF.
    """
    parts: Parts = [train, test, val]
    x, _ = _sides(inputs, parts, modalities)
    fields = {"text": partners} if isinstance(partners, str) else partners
    first = next(iter(fields.values()))
    if len(fields) == 1 and isinstance(train[0][first], str) and isinstance(test[0][first], str) and "text" in fields:
        texts = [[] if p is None else features.values(p, first) for p in parts]
        found = retrieval_baseline(Splits.of(x, texts), name)
    else:
        raw, _ = _sides(fields, parts, modalities)
        y = [dense(side) for side in raw]
        centre, scale = y[0].mean(0), y[0].std(0) + 1e-9
        partners_of = [Partners.of((side - centre) / scale) for side in y]
        found = matching_baseline(Splits.of(x, partners_of), name=name)
    return found | {"value": (found["value"] + found["value_reverse"]) / 2}


def forecasting(
    past: str,
    future: str,
    val: Records | None,
    test: Records,
    name: str = "",
    train: Records | None = None,
    units: str = "past",
    series: Modality | None = None,
) -> Result:
    """Last value, seasonal naive or, with training windows, a ridge regression on as much past as all windows have."""

    def windows(part: Records) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        records = [part[i] for i in range(len(part))]
        pasts, futures, periods = list[np.ndarray](), list[np.ndarray](), list[int]()
        for r in records:
            known, coming = r[past] if series is None else series.plain(r[past]), np.asarray(r[future], dtype=float)
            pairs = [(known, coming)]
            if coming.ndim > 1:  # of many series at once each is a window of its own
                pairs = list(zip(np.asarray(known, dtype=float).T, coming.T, strict=True))
            for own, after in pairs:
                pasts.append(filled(own))
                futures.append(after)
                periods.append(max(1, int(r.get("period") or 1)))
        whole = [i for i, f in enumerate(futures) if np.isfinite(f).all()]
        return [pasts[i] for i in whole], [futures[i] for i in whole], [periods[i] for i in whole]

    tested = windows(test)
    if not tested[0]:
        clock().begin()  # a rehearsal has the first windows alone, and a later one may be whole
        raise ValueError("no test window has a complete future")
    found = [tested, *(None if part is None else windows(part) for part in (val, train))]
    length = min(len(one) for part in found if part is not None for one in part[0])

    def cut(part: tuple[list, list, list] | None) -> Window | None:
        if part is None or not part[0]:
            return None
        return np.stack([p[-length:] for p in part[0]]), np.stack(part[1]), np.array(part[2])

    asked, told, fit = (cut(part) for part in found)
    assert asked is not None
    if told is None and fit is not None and len(fit[0]) > 4:  # the last fifth of the training windows chooses
        at = len(fit[0]) - len(fit[0]) // 5
        told, fit = (fit[0][at:], fit[1][at:], fit[2][at:]), (fit[0][:at], fit[1][:at], fit[2][:at])
    return forecasting_baseline(
        *asked, val=told, name=name, train=None if fit is None else (fit[0], fit[1]), units=units
    )


def filled(past: Any) -> np.ndarray:
    """Float[t] with its gaps filled between the values around them."""
    values = np.asarray(past, dtype=float).reshape(-1)
    gaps = np.isnan(values)
    if gaps.any() and not gaps.all():
        values = values.copy()
        values[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), values[~gaps])
    return values


def _answered(parts: Parts, tell: Callable[[Record], Any]) -> tuple[Parts, list[list[Any]]]:
    """The records that have an answer, and the answers ([] for a split that is not there)."""
    kept: Parts = []
    answers = []
    for records in parts:
        found = [] if records is None else [tell(records[i]) for i in range(len(records))]
        there = [i for i, answer in enumerate(found) if answer is not None]
        kept.append(records if records is None or len(there) == len(records) else records.only(there))
        answers.append([found[i] for i in there])
    return kept, answers


def _sides(inputs: dict[str, str], parts: Parts, modalities: Modalities | None) -> tuple[list[Any], bool]:
    """Features of the inputs, [n, d] a split that is there, and whether boosted trees may use them."""
    train, *others = (p for p in parts if p is not None)
    read = [] if modalities is None else [modalities.get(name) for name in inputs]
    return sides(train, others, list(inputs.values()), read)
