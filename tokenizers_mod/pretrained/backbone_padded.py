"""Pictures for a library's network: as the tensors that Hugging Face clients hold, and as features that are kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.cells import cells
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.padded import stack_padded
from generalist.tokenizers_mod.pretrained.features import KEY, Features, as_numbers, numbers


@dataclass
class Seen:
    """A picture whose features are kept: their key, and the raw value or its pixels Float[3 H W]."""

    key: str
    raw: Any
    pixels: Tensor | None = None
    mirrored: bool = False

    def flipped(self) -> Seen:
        """The same picture mirrored, under a key of its own."""
        key = hashlib.blake2b(self.key.encode(), digest_size=len(self.key) // 2).hexdigest()
        return Seen(key, self.raw, self.pixels, not self.mirrored)


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


class KeptPictures(PaddedPictures):
    """What a `Backbone` keeps on disk: the maps of a frozen network, or what the front makes where a tail learns."""

    features: float
    digest: str
    tail: int
    front: list[int]

    @property
    def ragged(self) -> bool:
        """Whether what goes into the network differs in size."""
        raise NotImplementedError

    @property
    def sides(self) -> Any:
        """The size of what goes in."""
        raise NotImplementedError

    def size_of(self, pixels: Tensor) -> Any:
        """Of one that goes in."""
        raise NotImplementedError

    def about(self) -> list[Any]:
        """What a feature depends on besides the sample and the weights."""
        raise NotImplementedError

    def span_of(self, data: dict[str, Tensor], shapes: list[list[int]]) -> Span:
        """Tokens of maps of these shapes."""
        length = sum(h * w for h, w, _ in shapes)
        return Span(self.name, data, length, grid=(shapes[0][0], shapes[0][1]) if len(shapes) == 1 else None)

    @property
    def store(self) -> Features:
        """The features on disk of this network, its pixels and its weights."""
        if "_features" not in self.__dict__:
            about = json.dumps(self.about(), sort_keys=True)
            self.__dict__["_features"] = Features(self.features, self.digest, about)
        return self.__dict__["_features"]

    def kept_at(self, size: Any) -> list[list[int]]:
        """[h, w, C] of every map that is kept of a picture of this size."""
        return [self.front] if self.tail else self.shapes_at(size)

    def kept_span(self, value: Seen) -> Span:
        """Of a picture (`Seen`) the features, or its pixels where there are none yet."""
        size, found, pixels = self.sides, None, torch.zeros(0)
        if not self.ragged:  # else a feature does not tell the picture's size
            found = self.store.get(value.key, numbers(self.kept_at(self.sides)))
        if found is None:
            pixels = self.prepared(self.pixels_of(value))
            size = self.size_of(pixels)
            if self.ragged:
                found = self.store.get(value.key, numbers(self.kept_at(size)))
        data = {
            "pixels": pixels.reshape(-1) if found is None else torch.zeros(0),
            "size": torch.tensor([size]),
            "key": as_numbers(value.key).view(1, KEY),
            "known": torch.tensor([found is not None]),
            "kept": torch.zeros(0) if found is None else found,
        }
        return self.span_of(data, self.shapes_at(size))
