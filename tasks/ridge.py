"""A linear forecast in closed form: the future as a ridge regression on the newest values of the past.

One matrix for all series, fitted on instance-normalised training windows (numbers spec, "closed-form ridge": on long
look-backs it is as good as most deep forecasters). A network then has only to say what the line leaves open.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import UserError


def newest(past: Float[Tensor, " t"], context: int) -> Float[Tensor, " context"]:
    """The last `context` values, NaN and what lies before the start as 0, the past's own mean."""
    value = past[-context:]
    return torch.nn.functional.pad(value, (context - len(value), 0)).nan_to_num()


def fit(
    windows: Iterable[tuple[Float[Tensor, " t"], Float[Tensor, " h"]]], context: int, strength: float
) -> Float[Tensor, "context h"]:
    """argmin_W sum |newest(past) W - future|^2 + strength |W|^2 over normalised windows; NaN futures are left out.

    UserError when no window has a complete future.
    """
    gram = torch.zeros(context, context, dtype=torch.float64)
    cross: Tensor | None = None
    block: list[tuple[Tensor, Tensor]] = []

    def add() -> None:
        nonlocal cross
        x, y = (torch.stack(side).double() for side in zip(*block, strict=True))
        gram.addmm_(x.T, x)
        cross = x.T @ y if cross is None else cross.addmm_(x.T, y)
        block.clear()

    for past, future in windows:
        if future.isfinite().all():
            block.append((newest(past, context), future))
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
