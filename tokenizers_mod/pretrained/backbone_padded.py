"""Pictures for a library's network as the tensors that Hugging Face clients hold, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.cells import cells
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.padded import stack_padded


@dataclass
class Seen:
    """A picture whose features are kept: their key, and the raw value or its pixels Float[3 H W]."""

    key: str
    raw: Any
    pixels: Tensor | None = None


class PaddedPictures(Modality):
    """What `Backbone` says of pixel_values and pixel_mask."""

    def prepared(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Float[3 H W] in 0..1 as the library prepares it."""
        raise NotImplementedError

    def pixels_of(self, value: Tensor | Seen) -> Tensor:
        """Float[3 H W] of what `read` gave."""
        raise NotImplementedError

    def shapes_at(self, size: Any) -> list[list[int]]:
        """[h, w, C] of every map of a picture of this size."""
        raise NotImplementedError

    def tensors(self, values: list[Tensor | Seen]) -> dict[str, Tensor]:
        """pixel_values [B, 3, H, W] as the library prepares them; pixel_mask Int[B H W] where sizes differ."""
        pixels, real = stack_padded([self.prepared(self.pixels_of(value)) for value in values])
        return {"pixel_values": pixels} | ({} if bool(real.all()) else {"pixel_mask": real})

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        pixels, real = tensors["pixel_values"], tensors.get("pixel_mask")
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise UserError(f"{self.name}: pixel_values {tuple(pixels.shape)}; expected [batch, 3, height, width]")
        if real is None or bool(real.all()):
            return {"pixels": pixels}, None
        sizes = torch.stack([real.amax(2).sum(1), real.amax(1).sum(1)], dim=1)
        flat = [p[:, :h, :w].reshape(-1) for p, (h, w) in zip(pixels, sizes.tolist(), strict=True)]
        counts = [sum(h * w for h, w, _ in self.shapes_at((h, w))) for h, w in sizes.tolist()]
        rows = torch.arange(max(counts), device=pixels.device) < torch.tensor(counts, device=pixels.device)[:, None]
        return {"pixels": torch.cat(flat), "size": sizes, "rows": rows}, rows

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        pixels = tensors["pixel_values"]
        shapes = self.shapes_at((pixels.shape[2], pixels.shape[3]))
        if real is not None or len(shapes) > 1:
            return None
        rows, columns, _ = shapes[0]
        cell = cells(rows, columns, pixels.device).expand(len(pixels), -1, -1)
        size = torch.tensor([rows, columns], device=pixels.device).expand(len(pixels), 2)
        return torch.cat([cell, size.unsqueeze(1).expand_as(cell)], dim=-1)
