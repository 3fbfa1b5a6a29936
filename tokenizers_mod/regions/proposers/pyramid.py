"""A plain vision transformer as a backbone of several scales: ViTDet's simple feature pyramid.

2203.16527, section 3: every scale is made of the last map alone (stride 16 for patches of 16), by a deconvolution
(x 2), two of them (x 4), nothing (x 1) or a max pooling (x 1/2), then a 1 x 1 and a 3 x 3 convolution, each with a
layer norm over channels. No lateral or top-down connections. As a setting of a region modality:

    backbone={"model_type": "simple_pyramid", "scales": [2, 1, 0.5], "channels": 256,
              "body": {"model_type": "vitdet", "hidden_size": 768, ...}}

body: any backbone of one scale of transformers' or (timm_backbone) timm's API that gives maps [B, C, h, w]: vitdet,
dinov2, vit of timm. Strides of the scales are its patch size / scale; weights of the body alone load by
backbone_weights.
"""

from __future__ import annotations

from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BackboneOutput

from generalist.data.base.errors import UserError, nearest

NAME = "simple_pyramid"
SCALES = (4, 2, 1, 0.5)


class SimplePyramidConfig(PreTrainedConfig):
    """body: settings of the plain backbone; channels: of every scale; scales: of SCALES, finest first."""

    model_type = NAME

    def __init__(
        self,
        body: dict[str, Any] | None = None,
        channels: int = 256,
        scales: tuple[float, ...] | list[float] = (2, 1, 0.5),
        **kwargs: Any,
    ) -> None:
        self.body = dict(body or {"model_type": "vitdet"})
        self.channels = channels
        self.scales = list(scales)
        super().__init__(**kwargs)


class SimplePyramid(PreTrainedModel):
    """pixels Float[B 3 H W] -> feature_maps, one a scale: Float[B channels h*scale w*scale], h x w the body's map."""

    config_class = SimplePyramidConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: SimplePyramidConfig) -> None:
        super().__init__(config)
        wrong = [s for s in config.scales if s not in SCALES]
        if wrong or not config.scales or config.scales != sorted(config.scales, reverse=True):
            raise UserError(f"region: pyramid scales {config.scales}; choose of {list(SCALES)}, finest first")
        settings = dict(config.body)
        kind = settings.pop("model_type", "")
        if kind not in CONFIG_MAPPING:
            raise UserError(f"region: unknown pyramid body {kind!r}; {nearest(kind, CONFIG_MAPPING)}")
        self.body = AutoBackbone.from_config(CONFIG_MAPPING[kind](**settings))
        width = self.body.channels[-1]
        self.levels = nn.ModuleList(level(width, config.channels, scale) for scale in config.scales)
        self.post_init()

    @property
    def channels(self) -> list[int]:
        return [self.config.channels] * len(self.config.scales)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        last = self.body(pixel_values).feature_maps[-1]
        return BackboneOutput(feature_maps=tuple(made(last) for made in self.levels))


def level(width: int, channels: int, scale: float) -> nn.Sequential:
    """One scale of the last map: Float[B width h w] -> Float[B channels h*scale w*scale]."""
    if scale == 4:
        moved: list[nn.Module] = [
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            LayerNorm2d(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        ]
        width = width // 4
    elif scale == 2:
        moved = [nn.ConvTranspose2d(width, width // 2, 2, 2)]
        width = width // 2
    elif scale == 0.5:
        moved = [nn.MaxPool2d(2, 2)]
    else:
        moved = []
    lateral = [nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels)]
    output = [nn.Conv2d(channels, channels, 3, 1, 1, bias=False), LayerNorm2d(channels)]
    return nn.Sequential(*moved, *lateral, *output)


def register() -> None:
    """Make the pyramid known to the library's look-up of backbones, which its detectors build theirs by."""
    AutoConfig.register(NAME, SimplePyramidConfig, exist_ok=True)
    AutoBackbone.register(SimplePyramidConfig, SimplePyramid, exist_ok=True)
