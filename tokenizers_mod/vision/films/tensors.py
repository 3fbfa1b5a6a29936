"""Films as the tensors that Hugging Face clients hold, and back."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.cells import cells
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality


class FilmTensors(Modality):
    """What `Video` says of pixel_values_videos."""

    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    axes: ClassVar[int] = 3

    patch: int
    tubelet: int

    def shown(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """What tokens are cut from: Float[T, C, height, width]."""
        raise NotImplementedError

    def patches(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Float[T, C, H, W] as it is shown -> the span."""
        raise NotImplementedError

    def tensors(self, values: list[Tensor]) -> dict[str, Tensor]:
        """Clips of one length -> pixel_values_videos Float[B, T, C, height, width]."""
        clips = [self.shown(value) for value in values]
        if len({len(c) for c in clips}) > 1:
            raise UserError(
                f"{self.name}: clips of {sorted({len(c) for c in clips})} frames in one tensor; give one length"
            )
        return {"pixel_values_videos": torch.stack(clips)}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """pixel_values_videos -> flat data of B * T * rows * columns tokens; all are real."""
        spans = [self.patches(clip.cpu()) for clip in tensors["pixel_values_videos"]]
        device = tensors["pixel_values_videos"].device
        return {key: torch.cat([s.data[key] for s in spans]).to(device) for key in ("patch", "place")}, None

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        clips = tensors["pixel_values_videos"]
        rows, columns = clips.shape[-2] // self.patch, clips.shape[-1] // self.patch
        cell = cells(rows, columns, clips.device).repeat(-(-clips.shape[1] // self.tubelet), 1)
        size = torch.tensor([rows, columns], device=clips.device).expand_as(cell)
        return torch.cat([cell, size], dim=-1).expand(clips.shape[0], -1, -1)
