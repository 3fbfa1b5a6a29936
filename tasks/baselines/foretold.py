"""What an ordinary forecast says of every step ahead, as log p over a task's bins: to be combined with a model's.

A normal distribution around what the method foretells, as wide at each step as its errors on validation windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.data.stream.source import Records
from generalist.tasks.baselines.baselines import filled
from generalist.tasks.baselines.guesses import LEAST, Guessed
from generalist.tasks.baselines.naive import RIDGE, linear_forecast, simple
from generalist.tasks.candidates.names import Numbers
from generalist.tasks.kinds.forecast import Forecast

AT_ONCE = 500  # windows whose bins are filled at a time


def futures(
    task: Forecast, train: Records, val: Records, asked: list[Records], method: str, refit: bool
) -> Guessed | None:
    """log p Float[n * slots a K] of the windows of `val` and of each of those asked; None where no slots are asked.

    method, refit: as in `tasks.baselines.guesses`.
    """
    numbers = task.candidates
    if task.joint or not isinstance(numbers, Numbers):
        return None
    field, future = next(iter(task.inputs.values())), task.future
    parts = [train, val, *asked]
    pasts = [[filled(task.series.plain(p[i][field])) for i in range(len(p))] for p in parts]
    length = min(len(past) for part in pasts for past in part)
    past = [np.stack([one[-length:] for one in part]) for part in pasts]
    truth = [np.stack([np.asarray(p[i][future], dtype=float) for i in range(len(p))]) for p in (train, val)]
    periods = [np.array([max(1, int(p[i].get("period") or 1)) for i in range(len(p))]) for p in parts]
    scale = [np.array([float(task.origin(p[i]).std) for i in range(len(p))]) for p in parts[1:]]

    def told(name: str, part: int, fit: list[int]) -> np.ndarray:
        if name != RIDGE:
            return simple(past[part], truth[0].shape[1], periods[part])[name]
        matrix = linear_forecast(np.concatenate([past[i] for i in fit]), np.concatenate([truth[i] for i in fit]))
        return (past[part] - past[part][:, -1:]) @ matrix + past[part][:, -1:]

    unit = scale[0][:, None] if task.units == "past" else 1.0
    names = [method] if method else ["last value", "seasonal naive", RIDGE]
    errors = {name: (told(name, 1, [0]) - truth[1]) / unit for name in names}
    best = min(errors, key=lambda name: float(np.nanmean(np.abs(errors[name]))))
    spread = np.sqrt(np.nanmean(errors[best] ** 2, axis=0))  # [h]
    fit = [0, 1] if refit else [0]
    out = []
    for number, part in enumerate(parts[1:], 1):
        width = spread / (1.0 if task.units == "past" else scale[number - 1][:, None])
        out.append(_over_bins(task, numbers, part, told(best, number, [0] if number == 1 else fit), width))
    return Guessed(best, out, refit)


def _over_bins(task: Forecast, numbers: Numbers, part: Records, guess: np.ndarray, width: np.ndarray) -> np.ndarray:
    """log p Float32[n * slots a K] of normal distributions. guess: Float[n h]; width: Float[n or 1, h], in z units."""
    from scipy.special import ndtr

    slot: Any = task.modalities[task.slot]
    patch = slot.patch
    bins, horizon = len(numbers.edges) - 1, guess.shape[1]
    slots = -(-horizon // patch)
    out = np.full((len(part), slots * patch, bins), -np.log(bins), dtype=np.float32)
    inner = np.array(numbers.edges[1:-1])
    width = np.broadcast_to(np.maximum(width, 1e-6), guess.shape)
    for start in range(0, len(part), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(part)))
        origins = [task.origin(part[i]) for i in rows]
        zero = np.stack([np.broadcast_to(np.asarray(o.location(numbers)), horizon) for o in origins])
        mean = np.array([float(o.mean) for o in origins])[:, None]
        std = np.array([float(o.std) for o in origins])[:, None]
        centre = (guess[rows.start : rows.stop] - mean) / std - zero
        below = ndtr((inner - centre[..., None]) / width[rows.start : rows.stop, :, None])
        p = np.diff(below, axis=-1, prepend=0.0, append=1.0)
        out[rows.start : rows.stop, :horizon] = np.log((1 - LEAST) * p + LEAST / bins)
    return out.reshape(len(part) * slots, patch, bins)
