"""How wide the intervals of a forecast are to be, step by step ahead: by conformal prediction on validation windows.

An interval reaches from the median by a width times what the model says of the low and the high side. The width of a
step is the quantile of |truth - median| over the side's reach that holds the share asked for (split conformal
prediction with a scale, 1905.03222): of so many windows like those, that share lies inside, whatever the model says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from generalist.tasks.base.reading import Reading
from generalist.tasks.candidates.names import Numbers

SHARE = 0.8  # of the intervals that are shown: from the quantile .1 to .9
LEAST = 100  # windows from which every step has a width of its own; of fewer all steps have one
FEWEST = 20  # windows, below which intervals stay as the model says


def fitted(numbers: Numbers, log_p: Tensor, labels: Tensor) -> list[float]:
    """A width a step, [] of too few windows. log p: Float[n steps K]; labels: Float[n steps], NaN where unknown."""
    low, middle, high = (numbers.quantile(log_p.float(), q) for q in (0.1, 0.5, 0.9))
    reach = torch.where(labels > middle, high - middle, middle - low).clamp(min=1e-9)
    far = (labels - middle).abs() / reach
    known = ~labels.isnan()
    count = int(known.any(1).sum())
    if count < FEWEST:
        return []
    if count < LEAST:
        return [_level(far[known])] * labels.shape[1]
    return [_level(far[known[:, h], h]) if bool(known[:, h].any()) else 1.0 for h in range(labels.shape[1])]


def _level(far: Tensor) -> float:
    """The smallest distance within which the share of n + 1 lies, the one that comes among them."""
    rank = min(len(far), int(-(-SHARE * (len(far) + 1) // 1)))
    return round(float(far.sort().values[rank - 1]), 4)


@contextmanager
def worn(task: Reading, widths: list[float]) -> Iterator[None]:
    """Inside, the task's intervals have these widths."""
    numbers = task.numbered
    if numbers is None:
        yield
        return
    held, numbers.widths = numbers.widths, widths
    try:
        yield
    finally:
        numbers.widths = held
