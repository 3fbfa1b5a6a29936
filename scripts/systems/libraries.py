"""Swin, ConvNeXt, PoolFormer and TNT: the authors' weights in timm's networks, through the modality `backbone`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import group_norm

from generalist.scripts.systems.plain import linear
from generalist.scripts.systems.reference import Reference
from generalist.tokenizers_mod.pretrained.backbone import Backbone

# system: a weight that it alone has, one of timm's networks of its kind, {the authors' setting: timm's}
SYSTEMS: dict[str, tuple[str, str, Mapping[str, str]]] = {
    "swin": (
        "layers.0.blocks.0.attn.relative_position_bias_table",
        "swin_tiny_patch4_window7_224",
        {name: name for name in ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "patch_size")},
    ),
    "convnext": ("downsample_layers.0.0.weight", "convnext_tiny", {"depths": "depths", "dims": "dims"}),
    "poolformer": ("network.0.0.layer_scale_1", "poolformer_s12", {"layers": "depths", "embed_dims": "dims"}),
    "tnt": (
        "inner_pos",
        "tnt_s_patch16_224",
        {"outer_dim": "embed_dim", "inner_dim": "inner_dim", "depth": "depth", "outer_num_heads": "num_heads_outer"}
        | {"inner_num_heads": "num_heads_inner", "inner_stride": "first_stride", "qkv_bias": "qkv_bias"}
        | {"patch_size": "patch_size"},
    ),
}


def knows(reference: Reference) -> bool:
    return any(reference.has(mark, "head.weight") for mark, *_ in SYSTEMS.values())


def compute(reference: Reference) -> dict[str, Tensor]:
    """The vector that the head reads, and the logits."""
    name = next(name for name, (mark, *_) in SYSTEMS.items() if reference.has(mark, "head.weight"))
    _, timm_name, keys = SYSTEMS[name]
    config, pixels, weights = reference.config, reference["input"], reference.weights
    settings: dict[str, Any] = {ours: config[theirs] for theirs, ours in keys.items() if theirs in config}
    config.get("layer_scale_init_value")  # the weights say it
    if name == "poolformer":
        config.only(reference.name, mlp_ratios=[4] * len(settings["depths"]))
        config.only(reference.name, downsamples=[True] * len(settings["depths"]))
    if name == "tnt":  # timm's is of 4 alone
        config.only(reference.name, mlp_ratio=4.0)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "official.safetensors"
        save_file({key: value.contiguous() for key, value in weights.items()}, file)
        backbone = {"model_type": "timm_backbone", "backbone": timm_name, **settings}
        maps = "last" if name == "poolformer" else "embedding"
        size = list(pixels.shape[2:])
        modality = Backbone(backbone=backbone, size=size, maps=maps, weights=str(file))
        built: Any = modality.build(16).eval()
        found = built.encoder(pixels)[0]
    if name == "poolformer":  # timm pools before it normalises, the authors behind
        features = group_norm(found, 1, weights["norm.weight"], weights["norm.bias"]).mean((2, 3))
    else:
        features = found[..., 0, 0]
    return {"features": features, "output": linear(weights, "head", features)}
