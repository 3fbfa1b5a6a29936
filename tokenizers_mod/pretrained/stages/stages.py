"""Pictures through the first stages of a pretrained network, a token each, moved and inverted in training as `Image`.

Features of early stages hold for most pictures (Yosinski et al. 2014, 1411.1792), of drawings as of photographs, and
learn on from there in minutes what takes a fresh network hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import weights_follow
from generalist.tokenizers_mod.libraries import names, weights, zoo
from generalist.tokenizers_mod.libraries.tower import Tower, build_tower
from generalist.tokenizers_mod.pretrained.stages.folded import StageToken
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.patch_tokens import PatchEmbedding


@dataclass
class Stages(Image):
    """Pictures of `patch` pixels, a token each; larger ones (`size`) as several, side by side.

    input_size: the side in pixels that the network sees a token's picture at, 0 = `patch`; small pictures are enlarged
    on the device, which costs a sample nothing where it is read.
    network: a network of timm whose stages stand in a row, such as EfficientNet or ConvNeXt; stages: how many of them.
    weights: "zoo:NAME", a file, "" = random ones, which is said. All of it learns; norms of batches are folded into the
    convolutions. mean and std: .5 is right to a hundredth for "zoo:efficientnet_lite0".

    >>> picture = Stages(network="test_efficientnet", stages=2, size=32, patch=32)
    >>> picture.span(picture.read(np.zeros((40, 50, 3), dtype=np.uint8))).length
    1
    """

    name: ClassVar[str] = "stages"

    size: int = 32
    patch: int = 32
    input_size: int = field(default=0, kw_only=True)
    network: str = field(default="tf_efficientnet_lite0", kw_only=True)
    stages: int = field(default=5, kw_only=True)
    weights: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != 3 or self.stem:
            raise UserError(f"{self.name}: a pretrained network takes channels=3 and no stem")
        if self.stages < 1 or self.input_size < 0:
            raise UserError(
                f"{self.name}: stages is {self.stages} and input_size {self.input_size}; at least 1 and 0 are needed"
            )

    def told(self) -> list[str]:
        if not self.weights:
            return ["its stages begin with RANDOM weights, tuned; weights= gives pretrained ones"]
        return [f"its stages begin with the weights {self.weights}, tuned"]

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import stages

        return stages()

    def build(self, width: int) -> nn.Module:
        description, _, _ = names.find({"model_type": "timm_backbone", "backbone": self.network}, "")
        input_size = self.input_size or self.patch
        tower = build_tower(description, (input_size, input_size), "last")
        if self.weights and not weights_follow():
            self._load(tower)
        stem = StageToken(tower, self.stages, self.patch, input_size, width, self.name)
        return PatchEmbedding(3 * self.patch**2, width, self.size // self.patch, stem)

    def _load(self, tower: Tower) -> None:
        tensors: dict[str, Any] = weights.read(weights.resolve(self.weights, self.name), self.name)
        if self.weights.startswith(weights.ZOO):
            tensors = zoo.entry(self.weights).renamed(tensors, tower.whole_state())
        tower.load(tensors, self.weights)
