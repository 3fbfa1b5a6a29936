"""A linear forecast in closed form: the future as a ridge regression on the newest values of the past.

One matrix for all series, fitted on instance-normalised training windows (numbers spec, "closed-form ridge": on long
look-backs it is as good as most deep forecasters). A network then has only to say what the line leaves open.

In units of its own past a window whose past hardly moves has a future hundreds of units away: a few of them would
decide the fit alone. So windows count by `influence`, which is about the fit in the series' own units.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.base.errors import UserError


def newest(past: Float[Tensor, " t"], context: int) -> Float[Tensor, " context"]:
    """The last `context` values, NaN and what lies before the start as 0, the past's own mean."""
    value = past[-context:]
    return torch.nn.functional.pad(value, (context - len(value), 0)).nan_to_num()


def influence(stds: Sequence[float], series: Sequence[Hashable]) -> Float[Tensor, " n"]:
    """How much each window counts, 1 on average: s^2 / (s^2 + the mean s^2 of its series), s its past's deviation.

    Squared errors in units of s times this are, for a window quieter than its series, squared errors in the series'
    unit; and none counts more than twice what one at its series' usual level does.
    """
    square = np.square(np.asarray(stds, dtype=np.float64))
    _, group = np.unique(np.array([str(name) for name in series]), return_inverse=True)
    usual = (np.bincount(group, square) / np.bincount(group))[group]
    weight = np.divide(square, square + usual, out=np.full(len(square), 0.5), where=square + usual > 0)
    return torch.from_numpy(weight / weight.mean())


def fit(
    windows: Iterable[tuple[Float[Tensor, " t"], Float[Tensor, " h"]]],
    context: int,
    strength: float,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "context h"]:
    """argmin_W sum w |newest(past) W - future|^2 + strength |W|^2 over normalised windows; NaN futures are left out.

    UserError when no window has a complete future.
    """
    gram = torch.zeros(context, context, dtype=torch.float64)
    cross: Tensor | None = None
    block: list[tuple[Tensor, Tensor]] = []

    def add() -> None:
        nonlocal cross
        x, y = (torch.stack(side) for side in zip(*block, strict=True))
        gram.addmm_(x.T, x)
        cross = x.T @ y if cross is None else cross.addmm_(x.T, y)
        block.clear()

    for number, (past, future) in enumerate(windows):
        if future.isfinite().all():
            root = 1.0 if weights is None else float(weights[number]) ** 0.5
            block.append((newest(past, context).double() * root, future.double() * root))
        if len(block) == 1024:
            add()
    if block:
        add()
    if cross is None:
        raise UserError("a linear forecast needs training windows whose future is complete; set linear=0")
    return torch.linalg.solve(gram + strength * torch.eye(context, dtype=torch.float64), cross).float()


def to_text(matrix: Float[Tensor, "context h"]) -> str:
    """float32, little-endian, row by row, in base64: a JSON value."""
    return base64.b64encode(matrix.float().contiguous().numpy().astype("<f4").tobytes()).decode()


def from_text(text: str, context: int) -> Float[Tensor, "context h"]:
    """The inverse of `to_text`. UserError when it is not such a text."""
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
        return torch.from_numpy(values.astype(np.float32).reshape(context, -1))
    except ValueError as error:
        raise UserError(f"a saved linear forecast is damaged ({error}); copy the model folder anew") from error
