"""Channel mixers: two linears with an activation, the gated one, one with a convolution between, and none."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.mixers.base import Mixer, Units, of_columns, of_rows, under
from generalist.nn.mixers.maps import GridMixer
from generalist.nn.spec import Needs
from generalist.tokenizers_mod.maps.base import convolved, kept


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

    @property
    def units(self) -> Units | None:
        return None if self.norm is not None else Units("hidden", self.down.in_features, self.down)

    def cut(self, kept: Tensor) -> dict[str, Tensor]:
        return under(up=of_rows(self.up, kept), down=of_columns(self.down, kept))


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

    @property
    def units(self) -> Units | None:
        return None if self.norm is not None else Units("hidden", self.down.in_features, self.down)

    def cut(self, kept: Tensor) -> dict[str, Tensor]:
        return under(
            up=of_rows(self.up, torch.cat([kept, kept + self.down.in_features])), down=of_columns(self.down, kept)
        )


class ConvMLP(GridMixer):
    """linear - depthwise 3 x 3 convolution on maps - activation - linear: PVT v2's (2106.13797, section 3.2).

    A token that is of no map skips the convolution.
    """

    def __init__(self, width: int, hidden: int, activation: nn.Module, norm: float | None = None) -> None:
        """norm: epsilon of a LayerNorm in front of the last linear; None for no such norm."""
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation = activation
        self.norm = None if norm is None else nn.LayerNorm(hidden, eps=norm)
        self.down = nn.Linear(hidden, width)

    def mix(self, maps: Float[Tensor, "G ... D"], real: Bool[Tensor, "G ..."] | None) -> Tensor:
        return convolved(self.local, kept(maps, real))

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        x = self.up(x)
        x = self.activation(self.mixed(x, at, x.clone()))
        return self.down(x if self.norm is None else self.norm(x))

    @property
    def units(self) -> Units | None:
        return None if self.norm is not None else Units("hidden", self.down.in_features, self.down)

    def cut(self, kept: Tensor) -> dict[str, Tensor]:
        local = {name: value[kept] for name, value in self.local.state_dict().items()}
        return under(up=of_rows(self.up, kept), local=local, down=of_columns(self.down, kept))


class Nothing(Mixer):
    """No channel mixer: its block has no second branch (2410.13732), neither norm nor gain."""

    needs = Needs(reach="token")

    def __init__(self, width: int, hidden: int, activation: nn.Module, norm: float | None = None) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        return torch.zeros_like(x)
