"""Mask2Former of transformers as region proposer: masks first, a box is its mask's extent.

Mask2Former: 2112.01527. It has no boxes of its own and no two stages; the two logits of its class head, object and
nothing, give the objectness.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.regions.proposers.base import Objects, Proposals, count_of, network


class Mask2FormerProposer(nn.Module):
    """config: settings of `Mask2FormerConfig`; the backbone gives the four scales 4, 8, 16, 32."""

    def __init__(
        self, name: str, config: dict[str, Any], backbone: dict[str, Any], masks: bool, checkpoint: str = ""
    ) -> None:
        super().__init__()
        from transformers import Mask2FormerForUniversalSegmentation as Network

        if not masks:
            raise UserError("region: mask2former proposes masks; set masks=True or choose another proposer")
        self.net, _ = network(Network, name, {"num_labels": 1, **config}, backbone, checkpoint)
        self.config = self.net.config
        self.width, self.queries = self.config.hidden_dim, self.config.num_queries
        self.last_width = self.net.model.pixel_level_module.encoder.channels[-1]

    def forward(self, pixels: Tensor, objects: list[Objects] | None = None) -> Proposals:
        given: dict[str, Any] = {}
        if objects is not None:
            masks = [item.masks.float() for item in objects if item.masks is not None]
            if len(masks) < len(objects):
                raise UserError("region: mask2former learns from masks; open the source with masks=True")
            given["mask_labels"] = masks
            given["class_labels"] = [
                torch.zeros(len(item.boxes), dtype=torch.long, device=pixels.device) for item in objects
            ]
        out = self.net(pixels, **given)
        logits = out.class_queries_logits
        masks = out.masks_queries_logits
        features = out.transformer_decoder_last_hidden_state
        if features.shape[0] != len(pixels):  # the library's decoder puts queries first
            features = features.transpose(0, 1)
        found = Proposals(
            features, extent(masks), logits[..., 0] - logits[..., 1], out.encoder_last_hidden_state, masks
        )
        if objects is not None:
            pairs = self.net.criterion.matcher(masks, logits, given["mask_labels"], given["class_labels"])
            found.matches = [(i.to(pixels.device), j.to(pixels.device)) for i, j in pairs]
            found.loss = (out.loss * count_of(objects)).reshape(1)
        return found


def extent(logits: Tensor) -> Tensor:
    """The box around the pixels with p > .5, all zero where there are none: Float[B Q h w] -> Float[B Q 4]."""
    inside = logits.detach() > 0
    _, _, h, w = inside.shape
    sides = []
    for axis, size in ((2, w), (3, h)):
        line = inside.any(axis)  # [B Q size], columns first
        first = line.float().argmax(-1)
        last = size - line.flip(-1).float().argmax(-1)
        sides.append((first / size, last / size, line.any(-1)))
    (left, right, some), (top, bottom, _) = sides
    box = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)
    return box * some.unsqueeze(-1)
