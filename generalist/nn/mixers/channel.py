"""Channel mixers, token by token: two linears with an activation, and the gated one."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.mixers.base import Mixer
from generalist.nn.spec import Needs


class MLP(Mixer):
    """linear - activation - linear, token by token."""

    needs = Needs(reach="token")

    def __init__(self, width: int, hidden: int, activation: nn.Module, norm: float | None = None) -> None:
        """norm: epsilon of a LayerNorm in front of the second linear; None for no such norm."""
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation
        self.norm = None if norm is None else nn.LayerNorm(hidden, eps=norm)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        x = self.activation(self.up(x))
        return self.down(x if self.norm is None else self.norm(x))


class SwiGLU(Mixer):
    """silu(x G) * (x W), then a linear, token by token (2002.05202, section 2); G and W are one matrix, G above.

    The activation is SiLU whatever `hidden_act` says. At equal parameters `hidden` is 2/3 of an MLP's.
    """

    needs = Needs(reach="token")
    stacked: ClassVar[dict[str, int]] = {"up": 2}

    def __init__(self, width: int, hidden: int, activation: nn.Module, norm: float | None = None) -> None:
        """norm: epsilon of a LayerNorm in front of the last linear; None for no such norm."""
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.norm = None if norm is None else nn.LayerNorm(hidden, eps=norm)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        gate, value = self.up(x).chunk(2, dim=-1)
        x = nn.functional.silu(gate) * value
        return self.down(x if self.norm is None else self.norm(x))
