"""Instance segmentation as likelihood: detection whose proposals carry masks (Uni-Perceiver v2, spec 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Example
from generalist.data.sources.annotations.masks import decode_mask
from generalist.data.stream.source import Record
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.measures.average_precision import decode_mask_code, encode_mask


@dataclass(kw_only=True)
class Segment(Detect):
    """The region modality has masks=True and the source masks=True. A mask pixel is p > .5."""

    kind: ClassVar[str] = "segment"
    areas: ClassVar[str] = "segm"
    line_kind: ClassVar[str] = "masks"

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import segment

        return segment()

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        if record.get("segments") is None:
            raise UserError("the record has no masks; open its source with masks=True")
        if not self.region.masks:
            raise UserError(f"task {self.name}: its region modality proposes no masks; set masks=True there")
        return super().example(record, rng)

    def masks(self, record: Record, taught: np.ndarray) -> Tensor | None:
        height, width = record["height"], record["width"]
        chosen = [s for s, t in zip(record["segments"], taught, strict=True) if t]
        if not chosen:
            return torch.zeros(0, height, width, dtype=torch.bool)
        return torch.from_numpy(np.stack([decode_mask(s, height, width) for s in chosen]))

    def true_image(self, record: Record, image_id: int) -> dict[str, Any]:
        masks = [encode_mask(decode_mask(s, record["height"], record["width"])) for s in record["segments"]]
        return {**super().true_image(record, image_id), "masks": masks}

    def outline(self, record: Record, rows: dict[str, Tensor], proposal: int) -> dict[str, Any]:
        size = (record["height"], record["width"])
        logits = interpolate(rows["masks"][proposal][None, None].float(), size, mode="bilinear", align_corners=False)
        return {"segmentation": encode_mask((logits[0, 0] > 0).cpu().numpy())}

    def _drawn(self, hit: dict[str, Any], record: Record, names: list[str]) -> dict[str, Any]:
        """The box, and the mask as runs in the grid of the picture that is drawn."""
        mask = decode_mask_code(hit["segmentation"])
        grid = (self.region.height, self.region.width)
        rows, columns = (np.arange(n) * full // n for n, full in zip(grid, mask.shape, strict=True))
        return {**super()._drawn(hit, record, names), "grid": list(grid), "runs": runs(mask[rows][:, columns])}


def runs(mask: np.ndarray) -> list[list[int]]:
    """Bool[H W] -> [row, first column, length] of every horizontal run of True."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, first = np.nonzero(edges == 1)
    _, after = np.nonzero(edges == -1)
    return np.stack([row, first, after - first], axis=1).tolist()
