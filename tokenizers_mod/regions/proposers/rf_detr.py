"""RF-DETR of transformers as region proposer: the one library network that gives vector, box and mask of every query.

RF-DETR: 2511.09554. Training runs `group_detr` groups of queries; the first group's are the proposals, as at inference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generalist.tokenizers_mod.regions.proposers.base import Objects, Proposals, count_of, labels_of, match, network


class RfDetrProposer(nn.Module):
    """config: settings of `RfDetrConfig`; backbone: usually {"model_type": "rf_detr_dinov2", ...}."""

    def __init__(
        self, name: str, config: dict[str, Any], backbone: dict[str, Any], masks: bool, checkpoint: str = ""
    ) -> None:
        super().__init__()
        from transformers import RfDetrForInstanceSegmentation, RfDetrForObjectDetection

        kind = RfDetrForInstanceSegmentation if masks else RfDetrForObjectDetection
        self.net, _ = network(kind, name, {"num_labels": 1, **config}, backbone, checkpoint)
        self.masks = masks
        self.config = self.net.config
        self.width = self.last_width = self.config.d_model
        self.queries = self.config.num_queries
        self._inner: list[Any] = []
        inner = self.net.model.model if masks else self.net.model
        for part, value in inner.named_parameters():
            if part.endswith("mask_token"):  # of the backbone's own pre-training, never used here
                value.requires_grad_(False)
        inner.register_forward_hook(lambda module, given, out: self._inner.append(out))

    def forward(self, pixels: Tensor, objects: list[Objects] | None = None) -> Proposals:
        labels = labels_of(objects, self.masks)
        out = self.net(pixels, labels=labels)
        inner = self._inner.pop()
        q = self.queries
        masks = out.pred_masks[:, :q] if self.masks else None
        logits, boxes = out.logits[:, :q], out.pred_boxes[:, :q].clamp(0, 1)
        maps = inner.backbone_features
        found = Proposals(
            inner.last_hidden_state[:, :q],
            boxes,
            logits.squeeze(-1),
            maps if isinstance(maps, Tensor) else maps[-1],
            masks,
        )
        if labels is not None and objects is not None:
            c = self.config
            found.matches = match(logits, boxes, labels, (c.class_cost, c.bbox_cost, c.giou_cost))
            found.loss = (torch.as_tensor(out.loss) * count_of(objects)).reshape(1)
        return found
