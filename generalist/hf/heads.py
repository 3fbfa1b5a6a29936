"""The model under the names that task-specific Auto classes map to. Same weights, same `forward`."""

from __future__ import annotations

from typing import ClassVar

from generalist.model import GeneralistModel


class GeneralistForZeroShotImageClassification(GeneralistModel):
    """`AutoModelForZeroShotImageClassification`: pixel_values and input_ids -> logits_per_image Float[B K]."""

    main_input_name = "pixel_values"
    chooses: ClassVar[bool] = True


class GeneralistForZeroShotAudioClassification(GeneralistModel):
    """The same for sound: input_features and input_ids -> logits_per_audio Float[B K]."""

    main_input_name = "input_features"
    chooses: ClassVar[bool] = True
