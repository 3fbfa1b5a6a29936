"""RT-DETR, RT-DETRv2 and D-FINE of transformers as region proposers: a foreground logit, a box and maybe a mask.

RT-DETR: 2304.08069; RT-DETRv2: 2407.17140; D-FINE: 2410.13842. They learn by far the fastest from scratch: their
encoder proposals have a loss of their own and denoising queries supervise every step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generalist.tokenizers_mod.regions.proposers.base import (
    PRIOR,
    MaskHead,
    Objects,
    Proposals,
    count_of,
    fresh,
    labels_of,
    mask_loss,
    match,
    network,
    stacked_masks,
)

KEEP = ("sampling_offsets", "attention_weights", "class_embed", "enc_score_head")


class RTDetrProposer(nn.Module):
    """config: settings of the transformers class; checkpoint: a folder of library weights, class heads made binary."""

    def __init__(
        self, name: str, config: dict[str, Any], backbone: dict[str, Any], masks: bool, checkpoint: str = ""
    ) -> None:
        super().__init__()
        from transformers import CONFIG_MAPPING, MODEL_FOR_OBJECT_DETECTION_MAPPING

        # a frozen norm of an untrained backbone never normalises
        settings = {
            "num_labels": 1,
            "freeze_backbone_batch_norms": bool(checkpoint),
            "initializer_bias_prior_prob": PRIOR,
        }
        kind = MODEL_FOR_OBJECT_DETECTION_MAPPING[CONFIG_MAPPING[name]]
        self.net, untrained = network(kind, name, {**settings, **config}, backbone, checkpoint)
        if untrained:
            fresh(self.net, KEEP)
            # the last layer of every box head starts at 0: boxes begin at their reference
            for head in [*self.net.model.decoder.bbox_embed, self.net.model.enc_bbox_head]:
                nn.init.zeros_(head.layers[-1].weight)
                nn.init.zeros_(head.layers[-1].bias)
        # the same modules stand in net.model.decoder, where the forward pass reads them; one name in the state dict
        for head in ("class_embed", "bbox_embed"):
            self.net._modules.pop(head, None)
        self.net._tied_weights_keys = {}
        self.net.all_tied_weights_keys = {}
        self.config = chosen = self.net.config
        self.width, self.queries = chosen.d_model, chosen.num_queries
        self.last_width = self.net.model.backbone.intermediate_channel_sizes[-1]
        self.mask_head = MaskHead(self.width, chosen.encoder_hidden_dim) if masks else None
        self._maps: list[Tensor] = []
        self.net.model.backbone.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, given: Any, out: Any) -> None:
        self._maps = [item[0] if isinstance(item, tuple) else item for item in out]

    def forward(self, pixels: Tensor, objects: list[Objects] | None = None) -> Proposals:
        labels = labels_of(objects)
        out = self.net(pixels, labels=labels)
        last_map, self._maps = self._maps[-1], []
        features, logits, boxes = out.last_hidden_state, out.logits, out.pred_boxes
        if self.training and out.denoising_meta_values is not None:
            # rows of denoising queries stand in front of the real ones in training
            split = out.denoising_meta_values["dn_num_split"]
            features, logits, boxes = (x.split(split, 1)[1] for x in (features, logits, boxes))
        masks = None
        if self.mask_head is not None:
            masks = self.mask_head(features, pixels, out.encoder_last_hidden_state[0])
        found = Proposals(features, boxes, logits.squeeze(-1), last_map, masks)
        if labels is not None and objects is not None:
            c = self.config
            found.matches = match(
                logits, boxes, labels, (c.matcher_class_cost, c.matcher_bbox_cost, c.matcher_giou_cost)
            )
            found.loss = (out.loss * count_of(objects)).reshape(1)
            if masks is not None:
                rows = torch.cat([m[i] for m, (i, _) in zip(masks, found.matches, strict=True)])
                found.loss = found.loss + mask_loss(rows, stacked_masks(objects, found.matches))
        return found
