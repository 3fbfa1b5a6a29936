"""Pictures through any picture network of timm, transformers or open_clip, as its maps or as its one vector.

Uni-Perceiver v2 (2211.09808, section 3.1) begins with a pretrained picture encoder. Tokens are a linear map of every
cell plus a sine-cosine position (and, with all scales, a vector a scale); the network's own preprocessing makes its
pixels (`generalist.tokenizers_mod.libraries.pixels`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import weights_follow
from generalist.tokenizers_mod.libraries import names, weights, zoo
from generalist.tokenizers_mod.libraries.chain import front_shape, front_state
from generalist.tokenizers_mod.libraries.pixels import as_picture, free_size, transform
from generalist.tokenizers_mod.libraries.tower import KINDS, Tower, build_tower, map_shapes
from generalist.tokenizers_mod.pretrained.backbone_padded import KeptPictures
from generalist.tokenizers_mod.pretrained.backbone_padded import Seen as Seen
from generalist.tokenizers_mod.pretrained.backbone_tokens import BackboneTokens
from generalist.tokenizers_mod.pretrained.base import Pretrained, vector
from generalist.tokenizers_mod.vision.augment import crop_and_flip, mirrors, strong
from generalist.tokenizers_mod.vision.films.frames import resize_cover
from generalist.tokenizers_mod.vision.image import ENOUGH, read_image

AUGMENTATIONS = ("none", "flip", "crop", "strong")
Size = tuple[int, int]
Found = tuple[dict[str, Any], dict[str, Any], str]


@dataclass
class Backbone(Pretrained, KeptPictures):
    """backbone: a name (timm's, "open_clip:ARCH", "zoo:NAME", "hub:NAME", a folder) or a configuration, as of `Region`.

    maps: "last" (a token a cell of the last map, its final norm applied where the library can), "all" (the cells of
        every scale) or "embedding" (one token: the network's own pooled vector).
    size: of its pictures, one number or [height, width]; 0 = the library's own. aspect: pictures keep theirs, the
        longer side is `size` and both are multiples of `stride`; for networks that take any size.
    quick: as of `Image`.
    augment: in training, "flip" (mirrored half of the time), "crop" (crop and flip) or "strong" (`Video`'s).
    tail: of a network of stages in a row, with maps="embedding", the last so many learn; all before them stay as they
        are and run once a sample, what they make of it (and of it mirrored) being kept on disk.
    network, pixels, shapes and front (of what is kept, with `tail`) are read at the first use and then part of the
    settings, so that a saved model stands alone.

    >>> picture = Backbone(backbone="test_convnext", size=64)  # or "zoo:efficientnet_lite0", whose weights are here
    >>> picture.span(picture.read(np.zeros((40, 50, 3)))).grid
    (2, 2)
    """

    name: ClassVar[str] = "image"
    raw: ClassVar[str] = "path, PIL image, array [H, W], [H, W, C] or [C, H, W], any mode and size"
    count: ClassVar[str] = "sum(h * w for h, w, _ in shapes); of the network's maps at the picture's size"
    kind: ClassVar[str] = "vision"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_mask")
    axes: ClassVar[int] = 2

    backbone: str | dict[str, Any] = ""
    maps: str = "last"
    size: int | list[int] = 0
    aspect: bool = False
    stride: int = 32
    augment: str = "none"
    background: float = 1.0
    quick: bool = field(default=False, kw_only=True)
    tail: int = field(default=0, kw_only=True)
    front: list[int] = field(default_factory=list, kw_only=True)
    network: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)
    shapes: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.check_learning(self.name)
        if self.maps not in KINDS:
            raise UserError(f"{self.name}: maps {self.maps!r}; {nearest(self.maps, KINDS)}")
        if self.augment not in AUGMENTATIONS:
            raise UserError(f"{self.name}: augment {self.augment!r}; {nearest(self.augment, AUGMENTATIONS)}")
        self.check_tail()
        sides = [self.size] if isinstance(self.size, int) else self.size
        if len(sides) not in (1, 2) or any(not isinstance(s, int) or s < 0 for s in sides) or self.stride < 1:
            raise UserError(f"{self.name}: size is {self.size!r}; it is a number of pixels or [height, width]")
        if not self.network and not self.backbone:
            names.find("", "")

    # --- what the network is ---

    def adopt(self) -> None:
        """Find the network, its pixels, its maps' shapes and, to keep features by, its weights' hash; once."""
        if self.network:
            return
        with torch.device("cpu"):  # also while a model is made without values
            network, pixels, self.weights = self.find()
            if not self.size:
                self.size = pixels.get("size", [224, 224])
            self.network, self.pixels, self.shapes = network, pixels, self._looked_at(network, self.sides)
            if self.tail:
                self.front = front_shape(self._tower(network), self.sides, self.tail, self.name)
        if (self.frozen or self.tail) and self.weights and not weights_follow():
            tower = self._tower(network)
            self._load(tower)
            fixed = front_state(tower.net, self.tail, self.name) if self.tail else tower.state_dict()
            self.digest = weights.digest(fixed)

    def _looked_at(self, network: dict[str, Any], size: Any) -> list[list[int]]:
        """[h, w, C] of every map at this size."""
        try:
            shapes = map_shapes(self._tower(network, on_meta=True), size, network["name"])
        except UserError:  # some look at values, which a network without any has not
            shapes = map_shapes(self._tower(network), size, network["name"])
        return [list(shape) for shape in shapes]

    def find(self) -> Found:
        """The network, what prepares its pixels, and where its weights come from."""
        return names.find(self.backbone, self.weights)

    def check_tail(self) -> None:
        """UserError: a tail that cannot be."""
        if self.tail < 0:
            raise UserError(f"{self.name}: tail is {self.tail}; it is a number of stages, 0 = none")
        if self.tail and (self.frozen or self.lora or self.aspect or self.maps != "embedding"):
            raise UserError(f'{self.name}: tail goes with maps="embedding" and neither with frozen, lora nor aspect')

    def learns(self) -> str:
        return f"its last {self.tail} stages tuned" if self.tail else super().learns()

    @property
    def stays(self) -> bool:
        return self.frozen or self.tail > 0

    @property
    def ragged(self) -> bool:
        """Whether what goes into the network differs in size."""
        return self.aspect

    def size_of(self, pixels: Tensor) -> Size:
        return pixels.shape[1], pixels.shape[2]

    def input_shape(self, size: Any) -> tuple[int, ...]:
        """Of one picture of this size."""
        return 3, *size

    @property
    def sides(self) -> Size:
        """Height and width of its pictures."""
        if not self.size:
            self.adopt()
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[-1])

    def _tower(self, network: dict[str, Any], on_meta: bool = False) -> Tower:
        """Built only to be looked at: fresh weights are drawn aside."""
        with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else torch.get_default_device()):
            return build_tower(network, self.sides, self.maps, self.aspect)

    def settings(self) -> dict[str, Any]:
        self.adopt()
        return super().settings()

    def told(self) -> list[str]:
        return self.origin()

    # --- CPU half ---

    def read(self, raw: Any) -> Tensor | Seen:
        """Float[3 H W] in 0..1; of a picture whose features are kept, the picture as it came, decoded when needed."""
        self.adopt()
        if not self.keeps:
            return self._decoded(raw)
        content = self.encoded(raw)
        if content is not None:
            seen = Seen(self.store.key(content), raw)
            if self.store.cache.place(seen.key).is_file():
                return seen
            seen.pixels = self._decoded(raw)
            return seen
        pixels = self._decoded(raw)
        return Seen(self.store.key(pixels.numpy().tobytes() + str(tuple(pixels.shape)).encode()), None, pixels)

    def _decoded(self, raw: Any) -> Tensor:
        return read_image(raw, 3, self.background, not self.quick, ENOUGH * max(self.sides) * self.quick)

    def pixels_of(self, value: Tensor | Seen) -> Tensor:
        if isinstance(value, Tensor):
            return value
        pixels = self._decoded(value.raw) if value.pixels is None else value.pixels
        return pixels.flip(-1) if value.mirrored else pixels

    def about(self) -> list[Any]:
        """What a feature depends on besides the sample and the weights."""
        quick = ["quick"] * self.quick
        tail = ["tail", self.tail] * bool(self.tail)
        made = [self.network, self.pixels, self.maps, self.sides, self.aspect and self.stride, self.background]
        return [*made, *quick, *tail]

    def plain(self, raw: Any) -> Any:
        return {"pixels": self._decoded(raw).numpy()}

    def vector(self, raw: Any) -> np.ndarray | None:
        return vector(self, raw)

    def show(self, raw: Any) -> dict[str, Any]:
        shown = self._decoded(raw)
        side = max(shown.shape[1:])
        if side > 64:
            small = [max(1, 64 * s // side) for s in shown.shape[1:]]
            shown = nn.functional.interpolate(shown[None], small, mode="bilinear", antialias=True)[0]
        return {"kind": "image", "pixels": shown.permute(1, 2, 0).mul(1000).round().div(1000).tolist()}

    def span(self, value: Tensor | Seen, rng: torch.Generator | None = None) -> Span:
        """A picture of any size -> data pixels [1, 3, h, w]; with `aspect` pixels [3 h w] and size Int[1, 2].

        Where features are kept: pixels, none of a picture whose features are there, size, key Int[1, 2], known Bool[1]
        and kept, its features or none.
        """
        if isinstance(value, Seen) and (rng is None or self.augment in ("none", "flip")):
            return self.kept_span(value.flipped() if self.augment == "flip" and mirrors(rng) else value)
        pixels = self.prepared(self.pixels_of(value), rng)
        size = self.size_of(pixels)
        data = {"pixels": pixels[None]}
        if self.ragged:
            data = {"pixels": pixels.reshape(-1), "size": torch.tensor([size])}
        return self.span_of(data, self.shapes_at(size))

    def steady(self) -> tuple[str, ...]:
        return ("read", "span") if self.augment == "none" and not self.keeps else ("read",)

    def prepared(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Float[3 H W] in 0..1 -> Float[3 h w] as the library prepares it, augmented in training."""
        self.adopt()
        if rng is not None and self.augment != "none":
            if self.augment == "flip":
                value = value.flip(-1) if mirrors(rng) else value
            elif self.augment == "strong":
                value = strong(value[None], self.sides, 0.5, rng)[0]
            else:
                larger = (self.sides[0] * 9 // 8, self.sides[1] * 9 // 8)
                value = crop_and_flip(resize_cover(value[None], larger), self.sides, 0.5, rng)[0]
        if self.aspect:
            return free_size(value, self.pixels, max(self.sides), self.stride)
        if "_transform" not in self.__dict__:
            self.__dict__["_transform"] = transform(self.pixels, self.sides)
        return self.__dict__["_transform"](as_picture(value))

    def shapes_at(self, size: Any) -> list[list[int]]:
        """[h, w, C] of every map of a picture of this size."""
        self.adopt()
        if size == self.sides:
            return self.shapes
        known = self.__dict__.setdefault("_known", {})
        if size not in known:
            known[size] = self._looked_at(self.network, size)
        return known[size]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_transform", "_features", "_alone")}

    def one_grid(self) -> tuple[int, ...] | None:
        self.adopt()
        return None if self.ragged or len(self.shapes) > 1 else (self.shapes[0][0], self.shapes[0][1])

    # --- device half ---

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import backbone

        return backbone()

    def build(self, width: int) -> nn.Module:
        self.adopt()
        tower = build_tower(self.network, self.sides, self.maps, self.aspect)
        if self.weights and not weights_follow():
            self._load(tower)
        return BackboneTokens(tower, width, self)

    def _load(self, tower: Tower) -> None:
        tensors = weights.read(weights.resolve(self.weights, self.name), self.name)
        if self.weights.startswith(weights.ZOO):
            tensors = zoo.entry(self.weights).renamed(tensors, tower.whole_state())
        tower.load(tensors, self.weights)
