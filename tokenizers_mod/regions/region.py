"""Pictures as regions: global tokens (attention-pooled and the last map) and proposals with boxes and masks.

Uni-Perceiver v2 (2211.09808, section 3.1; spec 2.1): a backbone and a proposer whose class heads are binary; every
proposal is the token q = q_sem + B(box) + M(mask), B a sine code of the four numbers and a linear map, M the mask
pooled to 28 x 28 and a linear map. Guesses where the paper's appendix is not available: one attention-pool head, box
code 4 x 128, mask logits through a sigmoid before pooling, no gradient through boxes and masks into their own codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality, sincos
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Embedded, Tokenizer, weights_follow
from generalist.tokenizers_mod.regions.objects import Augment, PixelObjects, shrink_masks, to_fractions
from generalist.tokenizers_mod.regions.pool import AttentionPool
from generalist.tokenizers_mod.regions.proposers import Objects, Proposals, build_proposer
from generalist.tokenizers_mod.regions.proposers.base import adopt_config, group_norms, load_backbone
from generalist.tokenizers_mod.vision.image import read_image

UNMATCHED = 0  # the label of a proposal without an object: "nothing", the first of a detection's candidates
MODES = ("both", "regional", "global")
NORMS = ("batch", "group")
MASK = 28  # side of the pooled mask (spec 2.1)
BOX = 128  # features of the sine code of each of the four numbers (guess: Mask DINO's)


@dataclass
class Region(Modality):
    """Pictures of one fixed size, (height, width) in pixels, both multiples of `stride`.

    proposer: a name of `PROPOSERS`; config: settings of its transformers class; backbone: {"model_type": ..., settings}
    of transformers' or timm's backbone API, or a plain ViT under a "simple_pyramid" (proposers/pyramid.py);
    checkpoint: a folder of library weights; backbone_weights: one of the backbone's alone. masks: proposals have masks.
    mode: "both", "regional" or "global" tokens. proposals: how many, the best by objectness. pooled: attention-pool
    heads. stride: pixels a cell of the backbone's last map. augment: in training, on pictures with objects.
    norm: "batch", the library's own, or "group", for an untrained network that several tasks' pictures share.

    >>> region = Region(height=64, width=96, stride=32, proposals=5)
    >>> region.span(region.read(torch.zeros(20, 40, 3))).length  # 1 pooled + 2 x 3 cells + 5 proposals
    12
    """

    name: ClassVar[str] = "region"
    raw: ClassVar[str] = "path, PIL image, array [H, W], [H, W, C] or [C, H, W], any mode and size"
    count: ClassVar[str] = (
        "(mode != 'regional') * (pooled + height // stride * (width // stride)) + (mode != 'global') * proposals"
    )
    kind: ClassVar[str] = "vision"

    height: int = 224
    width: int = 224
    proposer: str = "rt_detr_v2"
    config: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    backbone_weights: str = ""
    masks: bool = False
    mode: str = "both"
    proposals: int = 200
    pooled: int = 1
    stride: int = 32
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    augment: dict[str, float] = field(default_factory=dict)
    norm: str = "batch"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"{self.name}: mode {self.mode!r}; {nearest(self.mode, MODES)} (valid: {', '.join(MODES)})")
        if self.norm not in NORMS:
            raise UserError(f"{self.name}: norm {self.norm!r}; {nearest(self.norm, NORMS)} (valid: {', '.join(NORMS)})")
        if self.norm == "group" and (self.checkpoint or self.backbone_weights):
            raise UserError(f"{self.name}: norm='group' does not fit library weights; use norm='batch' with them")
        for side in ("height", "width"):
            if vars(self)[side] < self.stride or vars(self)[side] % self.stride:
                raise UserError(f"{self.name}: {side} {vars(self)[side]} is not a multiple of stride {self.stride}")
        if self.proposals < 1 and self.mode != "global":
            raise UserError(f"{self.name}: proposals must be at least 1, or mode 'global'")
        if self.checkpoint and not self.config.get("num_labels"):
            self.config = adopt_config(self.proposer, self.checkpoint, self.config) | {"num_labels": 1}
        known = vars(Augment())
        for key in self.augment:
            if key not in known:
                raise UserError(f"{self.name}: augment has no setting {key!r}; {nearest(key, known)}")

    # --- CPU half ---

    @property
    def global_tokens(self) -> int:
        return 0 if self.mode == "regional" else self.pooled + self.height // self.stride * (self.width // self.stride)

    @property
    def regional_tokens(self) -> int:
        return 0 if self.mode == "global" else self.proposals

    @property
    def proposal_rows(self) -> Tensor:
        """Positions of the proposals in a span: Int[proposals]."""
        return self.global_tokens + torch.arange(self.regional_tokens)

    def read(self, raw: Any) -> Tensor:
        return read_image(raw, 3)

    def plain(self, raw: Any) -> Any:
        return {"pixels": self.read(raw).numpy()}

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """Float [3, H, W] in 0..1 of any size -> data pixels [1, 3, height, width]; one row a span."""
        return self._span(self._resized(value))

    def object_span(self, value: Tensor, objects: PixelObjects, rng: torch.Generator | None = None) -> Span:
        """The same with the picture's true objects, which the proposer learns from and is matched to.

        data: pixels, count Int[1], boxes Float[n 4] (fractions), classes Int[n] and, of a proposer with masks, masks
        Bool[n height/4 width/4]. `rng` given: picture and objects are augmented together.
        """
        if rng is not None:
            value, objects = Augment(**self.augment)(value, objects, rng)
        _, h, w = value.shape
        data = {
            "pixels": self._resized(value),
            "count": torch.tensor([len(objects.boxes)]),
            "boxes": to_fractions(objects.boxes.float(), h, w),
            "classes": objects.classes,
        }
        if self.masks:
            if objects.masks is None:
                raise UserError(f"{self.name}: masks=True, but the picture's objects have no masks; set masks=False")
            data["masks"] = shrink_masks(objects.masks, self.height // 4, self.width // 4)
        return Span(self.name, data, self.global_tokens + self.regional_tokens)

    def _resized(self, value: Tensor) -> Tensor:
        size = (self.height, self.width)
        if tuple(value.shape[-2:]) != size:
            value = interpolate(value[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return ((value - mean) / std).unsqueeze(0)

    def _span(self, pixels: Tensor) -> Span:
        return Span(self.name, {"pixels": pixels}, self.global_tokens + self.regional_tokens)

    def show(self, raw: Any) -> dict[str, Any]:
        shown = interpolate(self.read(raw)[None], (self.height, self.width), mode="bilinear", antialias=True)[0]
        return {"kind": "image", "pixels": shown.permute(1, 2, 0).mul(1000).round().div(1000).tolist()}

    # --- device half ---

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.regions.examples import region

        return region()

    def build(self, width: int) -> nn.Module:
        from generalist.tokenizers_mod.libraries.timm_tower import sized

        with sized((self.height, self.width)):
            proposer = build_proposer(self.proposer, self.config, self.backbone, self.masks, self.checkpoint)
        assert isinstance(proposer, nn.Module)
        if self.norm == "group":
            group_norms(proposer)
        if self.backbone_weights and not weights_follow():
            body = self.backbone.get("body", self.backbone)  # of a pyramid, the transformer under it
            load_backbone(proposer, body.get("model_type", ""), self.backbone_weights)
        if self.mode != "global" and self.proposals > proposer.queries:
            raise UserError(
                f"{self.name}: {self.proposals} proposals asked of {proposer.queries} queries; raise the proposer's "
                "number of queries or lower proposals"
            )
        return RegionTokens(proposer, width, self)


class RegionTokens(Tokenizer):
    """forward({"pixels": Float[B 3 H W], ...}) -> Float[B * n, width]; beside them boxes, labels and loss."""

    def __init__(self, proposer: Any, width: int, settings: Region) -> None:
        super().__init__()
        if width % 4:
            raise UserError(f"region: width {width} is not a multiple of 4, which 2-D sine-cosine positions need")
        self.proposer = proposer
        self.mode, self.proposals, self.width = settings.mode, settings.proposals, width
        if settings.mode != "global":
            self.semantic = nn.Linear(proposer.width, width)
            self.box = nn.Linear(4 * BOX, width)
            self.mask = nn.Linear(MASK * MASK, width) if settings.masks else None
        if settings.mode != "regional":
            self.pool = AttentionPool(proposer.last_width, width, settings.pooled)
            self.cell = nn.Linear(proposer.last_width, width)

    def forward(self, data: dict[str, Tensor]) -> Embedded:
        objects = None if "count" not in data else split_objects(data)
        found = self.proposer(data["pixels"], objects)
        parts = []
        if self.mode != "regional":
            parts += self._global(found.last_map)
        if self.mode != "global":
            chosen = choose(found, self.proposals)
            parts.append(self._regional(chosen))
        x = torch.cat(parts, dim=1).flatten(0, 1)
        if self.mode == "global":
            return Embedded(x)
        return self._beside(x, chosen, data, skip=sum(p.shape[1] for p in parts[:-1]))

    def _global(self, last: Tensor) -> list[Tensor]:
        _, _, h, w = last.shape
        places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).reshape(-1, 2).to(last.device)
        position = sincos(places, self.width // 2).flatten(-2).to(last.dtype) * 0.2
        cells = last.flatten(2).transpose(1, 2)
        return [self.pool(cells, position), self.cell(cells) + position]

    def _regional(self, chosen: Proposals) -> Tensor:
        # no gradient through the codes: a box moves for the proposer's loss, not to be named more easily (guess)
        code = sincos(chosen.boxes.detach() * 2 * torch.pi * 8, BOX).flatten(-2).to(chosen.features.dtype)
        token = self.semantic(chosen.features) + self.box(code)
        if self.mask is not None and chosen.masks is not None:
            token = token + self.mask(adaptive_avg_pool2d(chosen.masks.detach().sigmoid(), MASK).flatten(2))
        return token

    def _beside(self, x: Tensor, chosen: Proposals, data: dict[str, Tensor], skip: int) -> Embedded:
        """The tokens and what is known of them; skip: global tokens in front of the proposals' own."""

        def by_row(values: Tensor) -> Tensor:
            """[B N ...] -> [B * n, ...], zeros at the global tokens."""
            empty = values.new_zeros(len(values), skip, *values.shape[2:])
            return torch.cat([empty, values], dim=1).flatten(0, 1)

        rows = {"boxes": chosen.boxes.detach(), "objectness": chosen.objectness.detach().sigmoid()}
        if chosen.masks is not None and not self.training:
            rows["masks"] = chosen.masks.detach()
        labels = None
        if chosen.matches is not None:
            labels = torch.full(chosen.objectness.shape, UNMATCHED, device=chosen.boxes.device)
            classes = data["classes"].split(data["count"].tolist())
            for b, (i, j) in enumerate(chosen.matches):
                labels[b, i] = classes[b][j] + 1
            labels = by_row(labels)
        return Embedded(x, {name: by_row(v) for name, v in rows.items()}, labels, chosen.loss)


def split_objects(data: dict[str, Tensor]) -> list[Objects]:
    """The objects of a batch by image."""
    counts = data["count"].tolist()
    masks = data["masks"].split(counts) if "masks" in data else [None] * len(counts)
    return [Objects(b, m) for b, m in zip(data["boxes"].split(counts), masks, strict=True)]


def choose(found: Proposals, count: int) -> Proposals:
    """The `count` proposals of each image with the highest objectness, ties by index; matches follow their rows."""
    total = found.objectness.shape[1]
    if count == total:
        return found
    order = found.objectness.detach().argsort(dim=1, descending=True, stable=True)[:, :count]

    def pick(values: Tensor) -> Tensor:
        index = order.view(*order.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
        return values.gather(1, index)

    matches = None
    if found.matches is not None:
        matches = []
        for row, (i, j) in zip(order, found.matches, strict=True):
            place = torch.full((total,), -1, device=row.device)
            place[row] = torch.arange(count, device=row.device)
            matches.append((place[i][place[i] >= 0], j[place[i] >= 0]))
    return Proposals(
        pick(found.features),
        pick(found.boxes),
        pick(found.objectness),
        found.last_map,
        None if found.masks is None else pick(found.masks),
        found.loss,
        matches,
    )
