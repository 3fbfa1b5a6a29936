"""What comes out of two modalities under the law, in transformers' words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class DualOutput(ModelOutput):
    """One modality against another under the law, B inputs x K candidates (B = K when `loss` is asked for).

    logits: Float[B K], scaled cosines; logits_per_image and logits_per_audio are the same where that is the
    input; logits_per_text: Float[K B], the other direction. embeds and text_embeds: unit vectors Float[B D], Float[K D]
    of the inputs and of the candidates.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_audio: Tensor | None = None
    logits_per_text: Tensor | None = None
    embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    audio_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
