"""What stands in the slots of a block: token mixers and channel mixers alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.attention.positions.base import Position
from generalist.nn.spec import Needs


@dataclass(frozen=True)
class Units:
    """What of a mixer can be taken out: equal parts of what enters its last linear, a head's channels or one hidden
    unit. size: the field of `LayerSpec` that says how many there are; count: how many; out: that linear."""

    size: str
    count: int
    out: nn.Linear


class Mixer(nn.Module):
    """Base of every mixer: packed tokens in, the same tokens out, and where they stand in `at`."""

    needs: ClassVar[Needs] = Needs()  # of a model; what it does not offer is refused when read
    positions: Sequence[Position] = ()  # what it does to queries, keys and scores by where tokens stand
    narrows: ClassVar[bool] = False  # where `at.only`, it gives the tokens asked alone: Float[W D]
    stacked: ClassVar[dict[str, int]] = {}  # own linears that hold several matrices one above the other, and how many

    def placed(self, positions: Mapping[str, Position] | None) -> Sequence[Position]:
        """The positions, which become modules of this one by their names."""
        for name, position in (positions or {}).items():
            self.add_module(name, position)
        return list((positions or {}).values())

    @classmethod
    def needs_with(cls, settings: dict[str, Any]) -> Needs:
        """What it needs with these settings."""
        return cls.needs

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        """Float[N D] -> Float[N D]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def kept(self, tokens: int) -> int:
        """How many numbers it keeps of a sequence of so many tokens while an answer to it is written word by word."""
        return 0

    @property
    def units(self) -> Units | None:
        """What can be taken out of it, None where it is of one piece."""
        return None

    def cut(self, kept: Tensor) -> dict[str, Tensor]:
        """The tensors of the mixer that has the units Int[k] alone, in their order; where there are `units`."""
        raise NotImplementedError(f"{type(self).__name__} has no units")

    @property
    def apart(self) -> bool:
        """Whether it gives some of the tokens by themselves what it gives them among all others."""
        return self.needs.reach == "token"

    def matrices(self) -> Iterator[tuple[Tensor, int]]:
        """The weights that are matrices, which decay and start as such, and how many each holds in its rows."""
        return matrices(self, self.stacked)


def of_rows(linear: nn.Linear, rows: Tensor) -> dict[str, Tensor]:
    """The tensors of a linear that has some of its rows alone."""
    return {name: value[rows] for name, value in linear.state_dict().items()}


def of_columns(linear: nn.Linear, columns: Tensor) -> dict[str, Tensor]:
    """The tensors of a linear that reads some of its channels alone."""
    return linear.state_dict() | {"weight": linear.weight.detach()[:, columns]}


def under(**parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of several modules under their names."""
    return {f"{name}.{key}": value for name, own in parts.items() for key, value in own.items()}


def matrices(module: nn.Module, stacked: Mapping[str, int]) -> Iterator[tuple[Tensor, int]]:
    """The weights of a module's linears and convolutions, and how many matrices each holds by its name."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield part.weight, stacked.get(name, 1)
