"""What an operator on maps is, and what it says of itself to whoever gathers the maps."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn


class MapOperator(nn.Module):
    """Base: kind(width, **settings), with `heads` among the settings where it has such.

    line: a text, a map of one row, goes through it as well; if not, lines pass unchanged. fixed: it has weights of the
    map's size. even: rows and columns must be even. stacked: own linears that hold several matrices one above the
    other, and how many.
    """

    line: ClassVar[bool] = True
    fixed: ClassVar[bool] = False
    even: ClassVar[bool] = False
    stacked: ClassVar[dict[str, int]] = {}

    def refuses(self, rows: int, columns: int) -> str:
        """Why it should have no maps of this size, and how to mend it; "" where it may. Asked when a recipe is read."""
        return ""

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        """Maps of one shape -> the same shape. real: False where a cell has no token; None: all have."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")


def kept(x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
    """The maps with zeros in cells that have no token."""
    return x if real is None else x * real.unsqueeze(-1)


def convolved(convolution: nn.Conv2d, x: Float[Tensor, "G H W D"]) -> Float[Tensor, "G H W D"]:
    """A convolution of maps whose channels are last."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class OwnLinear(nn.Linear):
    """A linear that keeps the initialisation its operator gave it; the encoder's others start anew."""
