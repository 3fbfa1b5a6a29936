"""Meta-Transformer's tokenizer of point clouds: three stages that sample, group and widen."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding

from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.geometry.points import Points


@dataclass
class MetaPoints(Points):
    """Farthest point groups through a mini-PointNet with batch norms; `widths` of its layers.

    The original adds the positions before every block; here they are added once, as everywhere in this model.
    normalise is off, as there.
    """

    normalise: bool = False
    widths: list[int] = field(default_factory=lambda: [128, 256, 512])

    def build(self, width: int) -> nn.Module:
        return MetaPointTokens(self.widths, width)


class MetaPointTokens(Tokenizer):
    """Per neighbour linear-norm-ReLU-linear, [max over the group, own], linear-norm-ReLU-linear, max; + position."""

    def __init__(self, widths: list[int], width: int) -> None:
        super().__init__()
        a, b, c = widths
        self.first = nn.Sequential(nn.Linear(3, a, bias=False), nn.BatchNorm1d(a), nn.ReLU(), nn.Linear(a, b))
        self.second = nn.Sequential(nn.Linear(2 * b, c, bias=False), nn.BatchNorm1d(c), nn.ReLU(), nn.Linear(c, width))
        self.position = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))

    def groups(self, group: Float[Tensor, "N k 3"]) -> Float[Tensor, "N width"]:
        """Groups relative to their centre -> tokens without positions."""
        n, k = group.shape[:2]
        x = self.first(group.reshape(n * k, -1)).view(n, k, -1)
        x = torch.cat([x.amax(1, keepdim=True).expand_as(x), x], dim=-1)
        return self.second(x.reshape(n * k, -1)).view(n, k, -1).amax(1)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"group": [N, k, 3], "center": [N, 3]} -> [N, width]."""
        return self.groups(data["group"]) + self.position(data["center"])


class ProgressiveStage(nn.Module):
    """One stage of the progressive point embedding: keep one point in four, look at its nearest neighbours.

    Per neighbour [relative xyz, feature difference] (`columns`): linear-norm-ReLU, linear, [max, own], twice
    linear-norm-ReLU, max over the group.
    """

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(columns, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.second = nn.Sequential(
            nn.Linear(2 * width, 2 * width, bias=False), nn.BatchNorm1d(2 * width), nn.ReLU(),
            nn.Linear(2 * width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip

    def forward(
        self, xyz: Float[Tensor, "n 3"], features: Float[Tensor, "n c"], size: int
    ) -> tuple[Float[Tensor, "g 3"], Float[Tensor, "g width"]]:
        """One cloud -> (centres, their features), g = n / 4; `size` neighbours each."""
        from generalist.tokenizers_mod.geometry.points import sample_groups

        centre, near = sample_groups(xyz, len(xyz) // 4, size)
        apart = embedding(near, features) - embedding(centre, features).unsqueeze(1)
        columns = torch.cat([xyz[near] - xyz[centre].unsqueeze(1), apart], -1)
        g, k = near.shape
        x = self.first(columns.reshape(g * k, -1)).view(g, k, -1)
        x = torch.cat([x.amax(1, keepdim=True).expand_as(x), x], dim=-1)
        return xyz[centre], self.second(x.reshape(g * k, -1)).view(g, k, -1).amax(1)
