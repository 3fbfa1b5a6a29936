"""What every region proposer takes and gives, and the set matching and mask losses that several of them share.

Boxes are (centre x, centre y, width, height) as fractions of the image, as everywhere in the DETR family.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.base.tokenizer import weights_follow
from generalist.tokenizers_mod.libraries.weights import refuse_pickles

PRIOR = (
    0.05  # objectness at the start; the library's 1 / (labels + 1) = .5 makes an image without objects cost about 110
)


@dataclass
class Objects:
    """The n true objects of one image: boxes Float[n 4], masks Bool[n h w] or None."""

    boxes: Tensor
    masks: Tensor | None = None


@dataclass
class Proposals:
    """What a proposer says of B images.

    features: Float[B Q d]; boxes: Float[B Q 4] in 0..1; objectness: logits Float[B Q]; masks: logits Float[B Q h w] or
    None; last_map: the backbone's last scale, Float[B C h w].
    loss: [1], summed over the batch's objects, and matches: for each image (proposals, objects) as Int[m] each; both
    None unless the true objects were given.
    """

    features: Tensor
    boxes: Tensor
    objectness: Tensor
    last_map: Tensor
    masks: Tensor | None = None
    loss: Tensor | None = None
    matches: list[tuple[Tensor, Tensor]] | None = None


@runtime_checkable
class RegionProposer(Protocol):
    """width: of the features; last_width: channels of the last map; queries: Q."""

    width: int
    last_width: int
    queries: int

    def __call__(self, pixels: Tensor, objects: list[Objects] | None = None) -> Proposals:
        """pixels: Float[B 3 H W], all of one size; objects: one entry an image, or None where none are known."""
        ...


def library_config(model_type: str, settings: dict[str, Any], backbone: dict[str, Any]) -> Any:
    """A transformers configuration from JSON settings, its backbone's from {"model_type": ..., settings}.

    Any backbone of transformers' backbone API, timm's through model_type "timm_backbone", published networks of our own
    through "stages", a plain ViT's scales through "simple_pyramid" (pyramid.py). UserError names a setting that the
    class does not have.
    """
    from transformers import CONFIG_MAPPING

    from generalist.tokenizers_mod.backbones import stages
    from generalist.tokenizers_mod.regions.proposers import pyramid  # loads the library: only where a network is built

    pyramid.register()
    stages.register()
    kind = CONFIG_MAPPING[model_type]
    known = {**kind().to_dict(), "num_labels": 0}
    for key in settings:
        if key not in known:
            raise UserError(f"region: {model_type} has no setting {key!r}; {nearest(key, known)}")
    values = dict(settings)
    if backbone:
        chosen = dict(backbone)
        name = chosen.pop("model_type", "")
        if name not in CONFIG_MAPPING:
            raise UserError(f"region: unknown backbone {name!r}; {nearest(name, CONFIG_MAPPING)}")
        values["backbone_config"] = CONFIG_MAPPING[name](**chosen)
    return kind(**values)


SKIPPED = ("id2label", "label2id", "architectures", "dtype", "torch_dtype", "transformers_version", "model_type")


def adopt_config(model_type: str, checkpoint: str, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a folder of library weights where they differ from the class's own, under those given.

    They become settings of the modality, so that a saved model needs the folder no more. UserError when the folder is
    not one of that network.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    try:
        stored = kind.get_config_dict(checkpoint)[0].get("model_type")
        loaded = kind.from_pretrained(checkpoint).to_dict() if stored == model_type else {}
    except (OSError, ValueError) as error:
        raise UserError(f"region: no library weights in {checkpoint!r} ({str(error).splitlines()[0]})") from error
    if stored != model_type:
        raise UserError(f"region: {checkpoint} holds {stored!r} weights, not {model_type!r}")
    plain = kind().to_dict()
    taken = {k: v for k, v in loaded.items() if k in plain and k not in SKIPPED and v != plain[k]}
    return {**taken, **config}


def network(
    kind: Any, model_type: str, settings: dict[str, Any], backbone: dict[str, Any], checkpoint: str
) -> tuple[Any, bool]:
    """A library network and whether its weights are fresh; where a saved model's follow, no checkpoint is read."""
    config = library_config(model_type, settings, backbone)
    if checkpoint and not weights_follow():
        refuse_pickles(Path(checkpoint), "region: ")
        return kind.from_pretrained(checkpoint, config=config, ignore_mismatched_sizes=True), False
    with warnings.catch_warnings():  # head widths that are no power of 2 matter to a CUDA kernel only
        warnings.simplefilter("ignore")
        return kind(config), not checkpoint


def load_backbone(proposer: nn.Module, model_type: str, folder: str) -> None:
    """Put a library backbone's weights, a folder or hub name, into a proposer's own. UserError where they differ."""
    from transformers import PreTrainedModel

    bodies = [m for m in proposer.modules() if isinstance(m, PreTrainedModel) and m.config.model_type == model_type]
    if not bodies:
        raise UserError(f"region: the proposer has no backbone of type {model_type!r} to load {folder} into")
    refuse_pickles(Path(folder), "region: ")
    try:
        loaded = type(bodies[0]).from_pretrained(folder, out_features=bodies[0].config.out_features).state_dict()
    except (OSError, ValueError) as error:
        raise UserError(f"region: no backbone weights in {folder!r} ({str(error).splitlines()[0]})") from error
    own = bodies[0].state_dict()
    missing = [k for k, v in own.items() if k not in loaded or loaded[k].shape != v.shape]
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"region: {folder} does not fit the backbone: {len(missing)} weights differ, such as {missing[0]}"
        )
    bodies[0].load_state_dict({k: loaded[k] for k in own if k in loaded}, strict=False)


def labels_of(objects: list[Objects] | None, masks: bool = False) -> list[dict[str, Tensor]] | None:
    """The DETR family's labels: every object is of class 0, foreground."""
    if objects is None:
        return None
    out = []
    for item in objects:
        label = {"class_labels": torch.zeros(len(item.boxes), dtype=torch.long, device=item.boxes.device)}
        out.append(label | {"boxes": item.boxes} | ({"masks": item.masks} if masks and item.masks is not None else {}))
    return out


def match(
    logits: Tensor, boxes: Tensor, labels: list[dict[str, Tensor]], costs: tuple[float, float, float] = (2, 5, 2)
) -> list[tuple[Tensor, Tensor]]:
    """The library's Hungarian matching of proposals and objects: logits Float[B Q 1], boxes Float[B Q 4].

    costs: of objectness (focal, alpha .25, gamma 2), L1 and GIoU.
    """
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    names = ("matcher_class_cost", "matcher_bbox_cost", "matcher_giou_cost")
    settings = dict(zip(names, costs, strict=True)) | {"matcher_alpha": 0.25, "matcher_gamma": 2.0}
    matcher = RTDetrHungarianMatcher(SimpleNamespace(use_focal_loss=True, **settings))
    found = matcher({"logits": logits, "pred_boxes": boxes}, labels)
    return [(i.to(boxes.device), j.to(boxes.device)) for i, j in found]


def count_of(objects: list[Objects]) -> int:
    """What the library divides its losses by: the batch's objects, at least one."""
    return max(1, sum(len(item.boxes) for item in objects))


def stacked_masks(objects: list[Objects], matches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The masks of matched objects in the order of the matches: Float[m h w]."""
    parts = []
    for item, (_, j) in zip(objects, matches, strict=True):
        if item.masks is None:
            raise UserError("region: the proposer learns masks but an image gives none; set masks=False")
        parts.append(item.masks[j].float())
    return torch.cat(parts)


def mask_loss(logits: Tensor, target: Tensor, bce: float = 5.0, dice: float = 5.0) -> Tensor:
    """Per-pixel binary cross-entropy and dice of m matched masks, summed over masks: Float[m h w] x 2 -> [1].

    Weights 5 and 5 are Mask DINO's and Mask2Former's [guess for Uni-Perceiver v2, whose appendix is not available].
    """
    if logits.shape[-2:] != target.shape[-2:]:
        logits = interpolate(logits.unsqueeze(1), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    flat, truth = logits.flatten(1), target.flatten(1)
    entropy = binary_cross_entropy_with_logits(flat, truth, reduction="none").mean(1)
    p = flat.sigmoid()
    overlap = 1 - (2 * (p * truth).sum(1) + 1) / (p.sum(1) + truth.sum(1) + 1)
    return (bce * entropy + dice * overlap).sum().reshape(1)


class MaskHead(nn.Module):
    """query x stride-4 map: the finest library map (stride 8), upsampled, plus a shallow stem of the pixels."""

    def __init__(self, width: int, channels: int, hidden: int = 32) -> None:
        super().__init__()
        groups = 8 if hidden % 8 == 0 else 1
        self.stem = nn.Sequential(
            nn.Conv2d(3, hidden, 3, 2, 1), nn.GELU(), nn.Conv2d(hidden, hidden, 3, 2, 1), nn.GroupNorm(groups, hidden)
        )
        self.lateral = nn.Conv2d(channels, hidden, 1)
        self.smooth = nn.Sequential(nn.GELU(), nn.Conv2d(hidden, hidden, 3, 1, 1))
        self.query = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, hidden))

    def forward(self, features: Tensor, pixels: Tensor, fine: Tensor) -> Tensor:
        """Float[B Q d], Float[B 3 H W], Float[B C H/8 W/8] -> mask logits Float[B Q H/4 W/4]."""
        stem = self.stem(pixels)
        up = interpolate(self.lateral(fine), stem.shape[-2:], mode="bilinear", align_corners=False)
        maps = self.smooth(stem + up)
        return torch.einsum("bqc,bchw->bqhw", self.query(features), maps)


def fresh(model: nn.Module, keep: tuple[str, ...]) -> None:
    """Weights that learn from scratch: BatchNorm scale 1, Kaiming convolutions, Xavier linears.

    transformers' RT-DETR draws BatchNorm scales from N(0, .01) and linears from std .01, which does no harm before a
    checkpoint is loaded and keeps an untrained network from learning (AP .11 against .33 after two minutes on blood
    cells). keep: parts of names that keep the library's own (sampling offsets, attention weights, heads).
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        elif any(part in name for part in keep):
            continue
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def group_norms(module: nn.Module, groups: int = 8) -> None:
    """Put a group norm (1803.08494) in the place of every batch norm; one of timm keeps its activation.

    Tasks that see other pictures share one set of running statistics in a batch norm, which is then right for none of
    them in evaluation; a group norm has none.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            fresh_norm = nn.GroupNorm(math.gcd(groups, child.num_features), child.num_features, child.eps)
            act: Any = getattr(child, "act", None)
            setattr(
                module, name, fresh_norm if act is None else nn.Sequential(fresh_norm, cast(nn.Module, child.drop), act)
            )
        else:
            group_norms(child, groups)
