"""Embedded time series: windows of a past and the future to forecast, split by time.

value    0 ............... 70 % ........ 85 % ....... 100 %
train    [past][future]                                      every value before 70 %
val              [past .........][future]                    the future between 70 and 85 %
test                      [past ............][future]        the future after 85 %
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.sources.embedded.files import columns, package_file
from generalist.data.sources.embedded.split import SPLITS, records
from generalist.data.stream.source import Records

MOST = {"train": 1000, "val": 40, "test": 40}  # windows a series, evenly spaced
# Columns of macrodata; the population, a straight line, is left out.
MACRO = ("realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1", "tbilrate", "unemp", "infl", "realint")


def series(seed: int = 0, lookback: int = 96, horizon: int = 24) -> dict[str, Records]:
    """{"id", "past": float32 [lookback], "future": float32 [horizon], "series", "period", "start"}.

    period: the season's length in steps; start: the index of the first past value in its series. No
    future value of val or test is in a training window (a val or test past may reach back into it, as
    it would in use). `seed` is not used: time decides. Values are in the series' own units.
    Source: the data sets of statsmodels.
    """
    parts: dict[str, list] = {split: [] for split in SPLITS}
    names = []
    for name, (values, period) in load().items():
        n = len(values)
        cut = {"train": (0, int(n * 0.7)), "val": (int(n * 0.7), int(n * 0.85)), "test": (int(n * 0.85), n)}
        spans = {}
        for split, (low, high) in cut.items():
            first = max(0, low - lookback)  # the earliest start whose future begins in this split
            spans[split] = (first, high - lookback - horizon)
        if any(last < first for first, last in spans.values()):
            continue  # too short for one window in each split
        names.append(name)
        for split, (first, last) in spans.items():
            count = min(MOST[split], last - first + 1)
            for start in np.unique(np.linspace(first, last, count).round().astype(int)):
                middle = start + lookback
                parts[split].append(
                    {
                        "id": f"series/{name}/{start}",
                        "past": values[start:middle],
                        "future": values[middle : middle + horizon],
                        "series": name,
                        "period": period,
                        "start": int(start),
                    }
                )
    if not names:
        raise UserError(f"series: no series is long enough for lookback={lookback}, horizon={horizon}: shorten them")
    about = f"{len(names)} series from statsmodels: {', '.join(names)}"
    return records(parts, synthetic=False, about=about, lookback=lookback, horizon=horizon, series=names)


def load() -> dict[str, tuple[np.ndarray, int]]:
    """Name -> (float32 values in time order, season's length)."""
    loaded: dict[str, tuple[Any, int]] = {}
    # The monthly numbers lie beside the yearly ones that statsmodels loads: a year and twelve values a line.
    sunspots = package_file("statsmodels", "datasets/sunspots/sunspots.csv").parent / "src" / "sunspots_monthly.dat"
    if sunspots.exists():
        lines = re.findall(r"^\d{4} .*$", sunspots.read_text(), re.MULTILINE)
        loaded["sunspots"] = ([float(v) for line in lines for v in line.split()[1:]], 12)
    loaded["co2"] = (monthly(_dataset("co2")["co2"], "1958-03-29"), 12)
    years = [values for name, values in _dataset("elnino").items() if name != "YEAR"]
    loaded["elnino"] = (np.stack(years, axis=1).ravel(), 12)
    loaded["elec_equip"] = (list(_dataset("elec_equip").values())[-1], 12)
    quarters = _dataset("macrodata")
    loaded.update({name: (quarters[name], 4) for name in MACRO})
    return {name: (np.asarray(values, dtype=np.float32), period) for name, (values, period) in loaded.items()}


def _dataset(name: str) -> dict[str, np.ndarray]:
    return columns(package_file("statsmodels", f"datasets/{name}/{name}.csv"))


def monthly(weekly: np.ndarray, first: str) -> np.ndarray:
    """Means of the weekly values of each month, the first week on day `first`; straight lines over empty months."""
    month = (np.datetime64(first) + 7 * np.arange(len(weekly))).astype("datetime64[M]").astype(int)
    month, seen = month - month[0], ~np.isnan(weekly)
    count = np.bincount(month[seen], minlength=month[-1] + 1)
    total = np.bincount(month[seen], weekly[seen], minlength=month[-1] + 1)
    known = np.flatnonzero(count)
    return np.interp(np.arange(len(count)), known, total[known] / count[known])
