"""A film's device half: tubelets of pixels to tokens, the place of their row of time and cell added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from generalist.tokenizers_mod.base.base import sincos
from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.vision.films.frames import (
    spatial_table,
)
from generalist.tokenizers_mod.vision.stem import ConvStem

if TYPE_CHECKING:
    from generalist.tokenizers_mod.vision.video import Video


class VideoTokens(Tokenizer):
    """forward({'patch': Float[N, C * tubelet * p * p], 'place': Int[N, 2]}) -> Float[N, width].

    `projection.weight` is a convolution's weight [D, C, p, p], or [D, C, tubelet, p, p], flattened.
    """

    def __init__(self, settings: Video, width: int) -> None:
        super().__init__()
        cells = settings.grid[0] * settings.grid[1]
        size = settings.channels * settings.tubelet * settings.patch**2
        self.projection: nn.Module
        if settings.stem:
            self.projection = ConvStem(settings.channels * settings.tubelet, settings.patch, settings.stem, width)
        else:
            self.projection = nn.Linear(size, width, bias=settings.bias)
            nn.init.xavier_uniform_(self.projection.weight)  # on the flattened kernel (spec 1.12)
            if settings.bias:
                nn.init.zeros_(self.projection.bias)
        self.temporal = nn.Embedding(settings.rows, width) if settings.rows else None
        if self.temporal is not None:
            nn.init.normal_(self.temporal.weight, std=0.02)
        if settings.table == "learned":
            self.spatial = nn.Parameter(torch.empty(cells, width).normal_(std=0.02))
        else:
            self.register_buffer("spatial", spatial_table(settings.grid, width, settings.scale))

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        frame, cell = data["place"].unbind(-1)
        dtype = next((p.dtype for p in self.projection.parameters()), torch.float32)  # none where torch.ao packed them
        patches = self.projection(data["patch"].to(dtype))
        time = sincos(frame, patches.shape[-1]).to(patches.dtype) if self.temporal is None else self.temporal(frame)
        return patches + time + embedding(cell, self.spatial).to(patches.dtype)
