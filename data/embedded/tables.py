"""Embedded tables: rows of named numbers with a class or a value to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.embedded.split import deal, records, unique
from data.source import Records


def wine(seed: int = 0) -> dict[str, Records]:
    """Chemical analysis of wines of three cultivars: {"id", "row": 13 columns, "label"}."""
    from sklearn.datasets import load_wine

    frame = load_wine(as_frame=True)
    classes = ["first cultivar", "second cultivar", "third cultivar"]
    return _table("wine", frame.data, frame.target, seed, "UCI wine recognition, from scikit-learn", classes)


def breast_cancer(seed: int = 0) -> dict[str, Records]:
    """Measurements of cell nuclei, malignant or benign: {"id", "row": 30 columns, "label"}."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True)
    about = "Wisconsin diagnostic breast cancer, from scikit-learn"
    return _table("breast_cancer", frame.data, frame.target, seed, about, ["malignant", "benign"])


def diabetes(seed: int = 0) -> dict[str, Records]:
    """Ten measurements and the disease's progression a year later: {"id", "row", "target"}, target 25..346."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False)
    about = "diabetes progression of 442 patients (Efron et al. 2004), from scikit-learn"
    return _table("diabetes", frame.data, frame.target, seed, about)


def anes96(seed: int = 0) -> dict[str, Records]:
    """Voters' answers and their vote in 1996: {"id", "row": 9 columns, "label"}."""
    from statsmodels.datasets import anes96 as dataset

    frame = dataset.load_pandas().data
    rows = frame.drop(columns=["vote", "logpopul"])  # logpopul repeats popul
    about = "American National Election Study 1996, from statsmodels"
    return _table("anes96", rows, frame["vote"], seed, about, ["clinton", "dole"])


def fair(seed: int = 0) -> dict[str, Records]:
    """Answers to a 1974 survey on marriage, affair reported or not: {"id", "row": 8 columns, "label"}.

    Many answers coincide; one row is kept for each combination, the first.
    """
    from statsmodels.datasets import fair as dataset

    frame = dataset.load_pandas().data
    about = "Redbook survey 1974 (Fair 1978), from statsmodels"
    label = (frame["affairs"] > 0).astype(int)
    return _table("fair", frame.drop(columns="affairs"), label, seed, about, ["no affair", "affair"])


def _table(
    name: str, frame: Any, answer: Sequence[float], seed: int, about: str, classes: list[str] | None = None
) -> dict[str, Records]:
    """Splits of a pandas frame and its column of answers; classes given means classification."""
    columns = [str(column) for column in frame.columns]
    rows = []
    for i, (values, value) in enumerate(zip(frame.to_numpy(dtype=float).tolist(), answer, strict=True)):
        told = {"label": int(value)} if classes else {"target": float(value)}
        rows.append({"id": f"{name}/{i}", "row": dict(zip(columns, values, strict=True)), **told})
    parts = deal(unique(rows, "row"), seed, by="label" if classes else None)
    extra = {"classes": classes} if classes else {}
    return records(parts, table=name, columns=columns, synthetic=False, about=about, **extra)
