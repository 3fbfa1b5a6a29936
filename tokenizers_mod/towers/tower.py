"""One side of a contrastive model as a modality: a sample is one token, the embedding that the tower gives it.

CPU half: the library's own preprocessing, so that a tower sees the tensors that it was trained with. Device half: the
library's own network. An encoder without layers that reads the mean of a sequence's other tokens hands the embedding on
as it is, and the law is that of the two towers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.towers.network import build_network


@dataclass
class Tower(Modality):
    """library: "open_clip" or "transformers"; config: of its network (`generalist.tokenizers_mod.towers.network`).

    size: width of the embedding. processor: the library's settings of what comes before the network. A checked value is
    {name: tensor of one sample}.
    """

    axes = 0
    count = "1"
    side = "image"  # of the network

    library: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    processor: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.library or not self.config or self.size < 1:
            raise UserError(f"{self.name}: a tower needs library, config and size; make one with generalist convert")

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again where it is needed: settings go to loader workers."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_made")}

    def span(self, value: dict[str, Tensor], rng: torch.Generator | None = None) -> Span:
        """One token, whose data are the sample's tensors with a batch axis in front."""
        return Span(self.name, {key: tensor.unsqueeze(0) for key, tensor in value.items()}, 1)

    def steady(self) -> tuple[str, ...]:
        return ("read", "span")

    def keep(self, value: dict[str, Tensor]) -> Tensor | None:
        """The one tensor of a sample; of several nothing is kept."""
        return next(iter(value.values())) if len(value) == 1 else None

    def kept(self, tensor: Tensor) -> dict[str, Tensor]:
        return {self.tensor_names[0]: tensor}

    def tensors(self, values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {key: torch.stack([value[key] for value in values]) for key in values[0]}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        return dict(tensors), None

    def build(self, width: int) -> nn.Module:
        return TowerTokens(build_network(self.library, self.side, self.config), self.size, width)


class TowerTokens(Tokenizer):
    """forward({name: [N ...]}) -> Float[N width]: the network's embeddings, as they are where the widths agree.

    A tower of which nothing trains stays in evaluation mode.
    """

    def __init__(self, network: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.network = network
        self.projection: nn.Module = nn.Identity() if size == width else nn.Linear(size, width)
        self.train(self.training)

    def train(self, mode: bool = True) -> TowerTokens:
        super().train(mode)
        if not any(p.requires_grad for p in self.network.parameters()):
            self.network.eval()
        return self

    def hold(self) -> bool:
        self.network.requires_grad_(False)
        self.train(self.training)
        return True

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return self.projection(self.network(**data))
