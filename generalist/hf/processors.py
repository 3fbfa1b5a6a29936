"""`AutoImageProcessor` and `AutoFeatureExtractor` of the model folder: thin faces of the model's own modalities.

Both read preprocessor_config.json, whose "modality" entries hold the settings of the modality that each stands for,
so that a picture or a sound becomes the same tensors here as in training.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin, SequenceFeatureExtractor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import TensorType

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.base.padded import stack_padded


def as_list(raw: Any) -> list[Any]:
    """One sample or many -> a list of samples; an array with a batch axis is many."""
    if isinstance(raw, list | tuple):
        return list(raw)
    return [raw]


class _ModalityFace:
    """Holds {name: settings} of one modality and builds it when first used."""

    modality: dict[str, Any]
    model_input_names: ClassVar[list[str]]

    @property
    def built(self) -> Modality:
        if "_built" not in self.__dict__:
            if not self.modality:
                wanted = self.model_input_names[0]
                raise UserError(
                    f"no modality of this model takes {wanted}; train it with one (modalities={{...}} of the recipe)"
                )
            ((_, self._built),) = build_modalities(self.modality).items()
        return self._built

    def batch(self, raw: Any, return_tensors: str | TensorType | None) -> BatchFeature:
        """Raw samples -> the modality's padded tensors; numpy arrays unless return_tensors says "pt"."""
        values = [self.built.read(item) for item in as_list(raw)]
        if not values:
            raise UserError("the batch is empty")
        data = {k: v.numpy() for k, v in self.built.tensors(values).items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_built"}  # rebuilt from the settings

    def to_dict(self) -> dict[str, Any]:
        built = self.__dict__.pop("_built", None)  # a live object does not belong in the JSON
        try:
            return super().to_dict()  # type: ignore[misc]
        finally:
            if built is not None:
                self._built = built


class GeneralistImageProcessor(_ModalityFace, BaseImageProcessor):
    """Pictures of any size and mode -> pixel_values Float[B C H W] (and pixel_mask Int[B H W] where sizes differ).

    modality: {"image": settings}, or another modality whose tensors are pixel_values.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_mask"]

    def __init__(self, modality: dict[str, Any] | None = None, **kwargs: Any) -> None:
        kwargs.pop("audio", None)
        super().__init__(**kwargs)
        self.modality = modality or {}

    def __call__(self, images: Any, return_tensors: str | TensorType | None = None, **kwargs: Any) -> BatchFeature:
        """images: one or a list of paths, PIL images or arrays."""
        return self.preprocess(images, return_tensors, **kwargs)

    def preprocess(self, images: Any, return_tensors: str | TensorType | None = None, **kwargs: Any) -> BatchFeature:
        if isinstance(images, np.ndarray) and images.ndim == 4:
            images = list(images)
        return self.batch(images, return_tensors)


class GeneralistFeatureExtractor(_ModalityFace, SequenceFeatureExtractor):
    """Waveforms -> input_features Float[B frames mels] (and input_features_mask where lengths differ).

    A SequenceFeatureExtractor by name, which is what makes a Trainer pad rows of unequal lengths with `pad`.

    audio: {"audio": settings}, or another modality whose tensors are input_features.
    """

    model_input_names: ClassVar[list[str]] = ["input_features", "input_features_mask"]

    def __init__(self, audio: dict[str, Any] | None = None, **kwargs: Any) -> None:
        kwargs.pop("modality", None)
        FeatureExtractionMixin.__init__(self, **kwargs)  # the modality knows the sizes that its own __init__ asks for
        self.audio = audio or {}

    @property
    def modality(self) -> dict[str, Any]:  # type: ignore[override]
        return self.audio

    @property
    def sampling_rate(self) -> int:
        """Hz at which the model hears."""
        return self.built.rate  # type: ignore[attr-defined]

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """raw_speech: one or a list of waveforms [t] at `sampling_rate` (the model's own by default), or of paths."""
        rate = sampling_rate or self.sampling_rate
        clips = [raw_speech] if isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 1 else as_list(raw_speech)
        if clips and isinstance(clips[0], int | float):
            clips = [clips]
        raw = [c if isinstance(c, str | dict | tuple) else (np.asarray(c), rate) for c in clips]
        return self.batch(raw, return_tensors)

    def pad(self, processed_features: Any, *_: Any, **kwargs: Any) -> BatchFeature:
        """Rows {input_features: [frames mels], maybe labels ...} -> one batch, as long as its longest row."""
        rows = [dict(row) for row in processed_features]
        if not rows or "input_features" not in rows[0]:
            raise UserError("give rows with input_features, one a sample")
        own, mask = self.model_input_names
        values = [torch.as_tensor(np.asarray(row.pop(own))) for row in rows]
        kept = [torch.as_tensor(np.asarray(row.pop(mask))).bool() if mask in row else slice(None) for row in rows]
        full, real = stack_padded([value[keep] for value, keep in zip(values, kept, strict=True)])
        data: dict[str, Any] = {own: full.numpy()} | ({} if bool(real.all()) else {mask: real[..., 0].numpy()})
        return BatchFeature(
            data | {key: [row[key] for row in rows] for key in rows[0]}, tensor_type=kwargs.get("return_tensors")
        )
