"""A table of series as a forecast: which column is the time, how long a past is read, where the split lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.sources.local import load_columns
from generalist.data.sources.windows import Windows
from generalist.data.tables.clock import by_group, clock_of
from generalist.fitting.parts import Ask, House, Part, several
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot

# seconds of a step -> steps of a season: a day of what is faster, a week of days, a year of what is slower
SEASONS = ((60, 60), (300, 288), (600, 144), (900, 96), (1800, 48), (3600, 24), (86400, 7), (604800, 52))
MONTH, QUARTER = 28 * 86400, 80 * 86400
LONGEST = 512  # steps of a past
MOST = 12_000  # windows that are trained on or tested


def forecast_part(ask: Ask, house: House) -> Part:
    """UserError in one line where no window of past and future fits."""
    horizon, path = ask.forecast, str(Path(ask.data).resolve())
    if horizon < 1:
        raise UserError(f"--forecast {horizon}: the number of steps ahead is at least 1")
    columns = load_columns(path)
    wanted = [ask.label] if ask.label else []
    if ask.group:
        columns = by_group(columns, ask.group, ask.date, wanted, ask.data)
        wanted = []
    clock = clock_of({n: v for n, v in columns.items() if n not in wanted}, ask.date)
    total = len(next(iter(columns.values())))
    period, step = season(None if clock is None else clock[1])
    test = max(horizon, round(total * 0.2))
    val = max(horizon, round(total * 0.1))
    first = total - val - test
    context = min(max(2 * horizon, 2 * period, 8), LONGEST, (first - horizon) // 2)
    if context < 2:
        raise UserError(
            f"{ask.data}: {total} steps of time are too few to forecast {horizon}: training, validation and test need "
            f"{4 * horizon + 4} or more; lower --forecast"
        )
    rows = {"train": [0, first], "val": [first, first + val], "test": [first + val, total]}
    settings: dict[str, Any] = {"group": ask.group, "time": ask.date, "columns": [ask.label] if ask.label else []}
    source = Windows(path, rows=rows, context=context, horizon=horizon, period=period, **settings)
    names = source.names()
    source.stride = max(1, -(-(first - context - horizon) * len(names) // MOST))
    source.test_stride = max(1, -(-(max(test, val) - horizon + 1) * len(names) // MOST))
    patch = max(1, min(16, horizon, context // 4))
    periods = [float(p) for p in dict.fromkeys((max(2, period), 7 * period if period > 1 else 12))]
    past = house.add("series", Series(patch=patch, periods=periods))
    slot = house.add("slot", Slot(patch=patch, periods=periods, recent=context))
    house.add("number", Number())
    task = Forecast(
        name=house.name(ask.label or ask.stem),
        source=source,
        inputs={past: "past"},
        slot=slot,
        horizon=horizon,
        linear=100.0,
        auxiliary=1.0,
        units="data",
        batch=32,
    )
    count = len(source.open("train"))
    for split in ("val", "test"):
        source.open(split)  # says in one line where it holds none
    told = [f"{ask.data}: {total:,} steps of {len(names)} series: {several(names, 5)}; forecast {horizon} steps"]
    when = f"time {clock[0]}, {step}" if clock is not None else "no column of time: rows are taken in order"
    told.append(f"  {when}; a season is {period} steps; the past read is {context} steps; {count:,} training windows")
    told.append(
        f"  split: in time, {first} steps train, {val} validation, {test} test; errors in the column's deviations"
    )
    return Part(task, count, told)


def season(moments: np.ndarray | None) -> tuple[int, str]:
    """Steps of a season and the step of time in words."""
    if moments is None or len(moments) < 3:
        return 1, "in order"
    apart = np.diff(np.unique(moments[~np.isnan(moments)]))
    step = float(np.median(apart)) if len(apart) else 1.0
    if step >= QUARTER:
        return (4 if step < 2 * QUARTER else 1), "quarters or longer"
    if step >= MONTH:
        return 12, "months"
    return next((n for s, n in SEASONS if abs(step - s) < 0.01 * s), 1), f"a step of {step:g} s"
