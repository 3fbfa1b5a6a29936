"""Deformable DETR (two-stage, box refinement) of transformers as region proposer.

Deformable DETR: 2010.04159. transformers gives the encoder's proposals no loss of their own, so an untrained two-stage
network cannot learn to propose; the loss is added here as in the official recipe (matched, every label 0).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generalist.tokenizers_mod.regions.proposers.base import (
    MaskHead,
    Objects,
    Proposals,
    count_of,
    labels_of,
    mask_loss,
    match,
    network,
    stacked_masks,
)


class DeformableProposer(nn.Module):
    """config: settings of `DeformableDetrConfig`; its batch norms are always frozen, so give a backbone without any."""

    def __init__(
        self, name: str, config: dict[str, Any], backbone: dict[str, Any], masks: bool, checkpoint: str = ""
    ) -> None:
        super().__init__()
        from transformers import DeformableDetrForObjectDetection

        fixed = {"num_labels": 1, "two_stage": True, "with_box_refine": True, "auxiliary_loss": True}
        fixed |= {"disable_custom_kernels": True, **config}
        self.net, _ = network(DeformableDetrForObjectDetection, name, fixed, backbone, checkpoint)
        # the same modules stand in net.model.decoder; the forward pass reads both names, the state dict keeps one
        self.net.model.decoder._modules.pop("class_embed", None)
        self.net.model.decoder._modules.pop("bbox_embed", None)
        object.__setattr__(self.net.model.decoder, "class_embed", self.net.class_embed)
        object.__setattr__(self.net.model.decoder, "bbox_embed", self.net.bbox_embed)
        self.net._tied_weights_keys = {}
        self.net.all_tied_weights_keys = {}
        self.config = self.net.config
        self.width = self.config.d_model
        self.queries = self.config.two_stage_num_proposals
        self._maps: list[Tensor] = []
        body = self.net.model.backbone
        body.register_forward_hook(self._keep)
        self.last_width = body.intermediate_channel_sizes[-1]
        self.mask_head = MaskHead(self.width, self.width) if masks else None

    def _keep(self, module: nn.Module, given: Any, out: Any) -> None:
        maps = out[0] if isinstance(out, tuple) and isinstance(out[0], list) else out
        self._maps = [item[0] if isinstance(item, tuple) else item for item in maps]

    def forward(self, pixels: Tensor, objects: list[Objects] | None = None) -> Proposals:
        labels = labels_of(objects)
        out = self.net(pixels, labels=labels)
        maps, self._maps = self._maps, []
        masks = None
        if self.mask_head is not None:
            h, w = maps[0].shape[-2:]  # the encoder's tokens of the finest level come first
            fine = out.encoder_last_hidden_state[:, : h * w].transpose(1, 2).unflatten(2, (h, w))
            masks = self.mask_head(out.last_hidden_state, pixels, fine)
        found = Proposals(out.last_hidden_state, out.pred_boxes, out.logits.squeeze(-1), maps[-1], masks)
        if labels is not None and objects is not None:
            c = self.config
            found.matches = match(out.logits, out.pred_boxes, labels, (c.class_cost, c.bbox_cost, c.giou_cost))
            found.loss = ((out.loss + self.encoder_loss(out, labels)) * count_of(objects)).reshape(1)
            if masks is not None:
                rows = torch.cat([m[i] for m, (i, _) in zip(masks, found.matches, strict=True)])
                found.loss = found.loss + mask_loss(rows, stacked_masks(objects, found.matches))
        return found

    def encoder_loss(self, out: Any, labels: list[dict[str, Tensor]]) -> Tensor:
        """Focal, L1 and GIoU of the encoder's proposals, matched: the library's own loss on another output."""
        from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss

        plain = type(self.config).from_dict(self.config.to_dict() | {"auxiliary_loss": False})
        boxes = out.enc_outputs_coord_logits.sigmoid()
        return DeformableDetrForObjectDetectionLoss(out.enc_outputs_class, labels, boxes.device, boxes, plain)[0]
