"""What a network of the stages is: pictures to maps, and the names that its official weights have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn


class Network(nn.Module):
    """Base: kind(**settings); every setting has a default.

    channels: of the maps that it gives, finest first; stride: of the coarsest, which the sides of a picture should be
    multiples of. names: (official pattern, our replacement) of its weights, in order; DROPPED: what official files hold
    besides.
    """

    channels: list[int]
    stride: int
    names: ClassVar[list[tuple[str, str]]] = []
    dropped: ClassVar[str] = r"$^"

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Pictures of one size -> maps Float[B channels h w], finest first."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    @classmethod
    def renamed(cls, key: str) -> str | None:
        """Our name of an official weight; None for what the maps do not need, such as a head."""
        if re.match(cls.dropped, key):
            return None
        for pattern, ours in cls.names:
            key = re.sub(pattern, ours, key)
        return key

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Those settings that official weights show, {} for a kind that cannot tell."""
        return {}
