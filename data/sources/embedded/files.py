"""Data files inside installed packages, found and read without importing the package: imports take seconds."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np

from generalist.data.base.errors import UserError


def root(package: str) -> Path | None:
    """The folder of an installed package, without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def package_file(package: str, place: str) -> Path:
    """A file of a package. ModuleNotFoundError without the package, UserError where it has no such file."""
    home = root(package)
    if home is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if not (home / place).is_file():
        raise UserError(f"{package} in {home} has no file {place}; install another version of it")
    return home / place


def columns(path: Path) -> dict[str, np.ndarray]:
    """A .csv file with a header: column name -> float64 values, NaN where a cell holds no number."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    values = np.array([[_number(cell) for cell in row] for row in rows if row])
    return {name.strip(): values[:, i] for i, name in enumerate(head)}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
