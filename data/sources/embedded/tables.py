"""Embedded tables: rows of named numbers with a class or a value to predict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from generalist.data.sources.embedded.files import package_file
from generalist.data.sources.embedded.split import deal, records, unique
from generalist.data.stream.source import Records

# as scikit-learn names them
WINE = ["alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids"]
WINE += ["nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline"]
NUCLEI = ["radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points"]
NUCLEI += ["symmetry", "fractal dimension"]
DIABETES = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]


def wine(seed: int = 0) -> dict[str, Records]:
    """Chemical analysis of wines of three cultivars: {"id", "row": 13 columns, "label"}."""
    values = np.loadtxt(package_file("sklearn", "datasets/data/wine_data.csv"), delimiter=",", skiprows=1)
    classes = ["first cultivar", "second cultivar", "third cultivar"]
    about = "UCI wine recognition, from scikit-learn"
    return _table("wine", WINE, values[:, :-1], values[:, -1], seed, about, classes)


def breast_cancer(seed: int = 0) -> dict[str, Records]:
    """Measurements of cell nuclei, malignant or benign: {"id", "row": 30 columns, "label"}."""
    values = np.loadtxt(package_file("sklearn", "datasets/data/breast_cancer.csv"), delimiter=",", skiprows=1)
    columns = [form.format(name) for form in ("mean {}", "{} error", "worst {}") for name in NUCLEI]
    about = "Wisconsin diagnostic breast cancer, from scikit-learn"
    return _table("breast_cancer", columns, values[:, :-1], values[:, -1], seed, about, ["malignant", "benign"])


def diabetes(seed: int = 0) -> dict[str, Records]:
    """Ten measurements and the disease's progression a year later: {"id", "row", "target"}, target 25..346."""
    values = np.loadtxt(package_file("sklearn", "datasets/data/diabetes_data_raw.csv.gz"))
    target = np.loadtxt(package_file("sklearn", "datasets/data/diabetes_target.csv.gz"))
    about = "diabetes progression of 442 patients (Efron et al. 2004), from scikit-learn"
    return _table("diabetes", DIABETES, values, target, seed, about)


def anes96(seed: int = 0) -> dict[str, Records]:
    """Voters' answers and their vote in 1996: {"id", "row": 9 columns, "label"}."""
    from statsmodels.datasets import anes96 as dataset

    frame = dataset.load_pandas().data
    rows = frame.drop(columns=["vote", "logpopul"])  # logpopul repeats popul
    about = "American National Election Study 1996, from statsmodels"
    return _frame("anes96", rows, frame["vote"], seed, about, ["clinton", "dole"])


def fair(seed: int = 0) -> dict[str, Records]:
    """Answers to a 1974 survey on marriage, affair reported or not: {"id", "row": 8 columns, "label"}.

    Many answers coincide; one row is kept for each combination, the first.
    """
    from statsmodels.datasets import fair as dataset

    frame = dataset.load_pandas().data
    about = "Redbook survey 1974 (Fair 1978), from statsmodels"
    label = (frame["affairs"] > 0).astype(int)
    return _frame("fair", frame.drop(columns="affairs"), label, seed, about, ["no affair", "affair"])


def _frame(name: str, frame: Any, answer: Any, seed: int, about: str, classes: list[str]) -> dict[str, Records]:
    """Splits of a pandas frame and its column of answers."""
    return _table(name, [str(c) for c in frame.columns], frame.to_numpy(dtype=float), answer, seed, about, classes)


def _table(
    name: str,
    columns: list[str],
    cells: np.ndarray,
    answer: Iterable[float],
    seed: int,
    about: str,
    classes: list[str] | None = None,
) -> dict[str, Records]:
    """Splits of rows of cells and their answers; classes given means classification."""
    rows = []
    for i, (values, value) in enumerate(zip(cells.tolist(), answer, strict=True)):
        told = {"label": int(value)} if classes else {"target": float(value)}
        rows.append({"id": f"{name}/{i}", "row": dict(zip(columns, values, strict=True)), **told})
    parts = deal(unique(rows, "row"), seed, by="label" if classes else None)
    extra = {"classes": classes} if classes else {}
    return records(parts, table=name, columns=columns, synthetic=False, about=about, **extra)
