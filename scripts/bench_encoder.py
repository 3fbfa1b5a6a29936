"""One training step of the same ViT in three implementations: ours, open_clip's, transformers' CLIP.

A step is forward, a loss on the image feature, backward and AdamW (torch's, the same for all). Inputs are ready
pictures: theirs go through a convolution, ours come as the flattened patches that its loader workers make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.batch.pack import pack
from generalist.data.batch.types import Packed
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.scripts.timing import Timing, alternate
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.vision.image import Image


@dataclass(frozen=True)
class Shape:
    """A ViT: pictures of `size` pixels in patches, an encoder, and a batch."""

    name: str
    size: int
    patch: int
    width: int
    layers: int
    heads: int
    batch: int


SMALL = Shape("small: 6 layers, width 192, 56 px in patches of 8", 56, 8, 192, 6, 3, 16)
BASE = Shape("ViT-B/32 at 224 px", 224, 32, 768, 12, 12, 8)


def ours(shape: Shape) -> tuple[GeneralistModel, Packed]:
    settings: dict[str, Any] = {"size": shape.size, "patch": shape.patch, "channels": 3}
    config = GeneralistConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        final_norm=True,
        modalities={"summary": {}, "image": settings},
    )
    image, summary = Image(**settings), Summary()
    pictures = torch.rand(shape.batch, 3, shape.size, shape.size)
    return GeneralistModel(config), pack([[summary.span(None).ask([0]), image.span(p)] for p in pictures])


def open_clip(shape: Shape) -> nn.Module:
    from open_clip.transformer import VisionTransformer

    return VisionTransformer(
        shape.size, shape.patch, shape.width, shape.layers, shape.heads, 4.0, output_dim=shape.width
    )


def clip(shape: Shape) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            projection_dim=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            image_size=shape.size,
            patch_size=shape.patch,
            hidden_act="gelu",
        )
    )


def step(model: nn.Module, feature: Callable[[], Tensor], precision: str) -> Callable[[], None]:
    """forward, loss, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    device = next(model.parameters()).device.type

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            out = feature()
        loss = nn.functional.normalize(out.float(), dim=-1).mul(weight).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with torch.no_grad():
        weight = torch.randn_like(feature().float())
    return run


def steps(shape: Shape, precision: str, device: str = "cpu") -> dict[str, Callable[[], None]]:
    """The three training steps, by name."""
    torch.manual_seed(0)
    model, packed = ours(shape)
    model, packed = model.to(device).train(), packed.to(device)
    pictures = torch.rand(shape.batch, 3, shape.size, shape.size, device=device)
    theirs, huggingface = open_clip(shape).to(device).train(), clip(shape).to(device).train()
    return {
        "generalist": step(model, lambda: model.features(packed), precision),
        "open_clip": step(theirs, lambda: theirs(pictures), precision),
        "transformers": step(huggingface, lambda: huggingface(pictures).image_embeds, precision),
    }


def measure(
    shapes: Sequence[Shape], precisions: Sequence[str], rounds: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    """One line a shape, precision and rival: the ratio of our step's time to the rival's (under 1 = ours is faster)."""
    lines = []
    for shape in shapes:
        for precision in precisions:
            calls = steps(shape, precision, device)
            for rival in ("open_clip", "transformers"):
                pair = {name: calls[name] for name in ("generalist", rival)}
                timing: Timing = alternate(pair, base=rival, rounds=rounds)
                low, middle, high = timing.ratios["generalist"]
                tokens = shape.batch * ((shape.size // shape.patch) ** 2 + 1)
                lines.append(
                    {
                        "what": f"training step, {shape.name}, batch {shape.batch}, {precision}",
                        "against": rival,
                        "ratio": middle,
                        "quartiles": [low, high],
                        "cpu_ratio": timing.cpu["generalist"],
                        "target": "<= 1.00",
                        "seconds": timing.seconds,
                        "tokens_per_second": tokens / timing.seconds["generalist"],
                    }
                )
    return lines
