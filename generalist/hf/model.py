"""`GeneralistModel`, a Hugging Face model, and the same under the names that task-specific Auto classes map to."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from generalist.data.batch.types import Packed
from generalist.hf.folder import AUTO_MAP, DETECTION_PIPELINE, write_remote
from generalist.hf.padded.features import FeatureModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.folder.referred import refer
from generalist.model.folder.stored import read_small
from generalist.model.sides import INPUT
from generalist.tokenizers_mod.base.capabilities import Proposes

PAIRWISE = "generalist_siglip"  # a pipeline then takes the sigmoid of every logit instead of their softmax


class GeneralistModel(FeatureModel):
    """The model as transformers' tools use it: packed sequences, or padded tensors under their standard names."""

    main_input_name = "input_ids"
    input_modalities = ("text", "image", "audio")

    def forward(
        self,
        packed: Packed | None = None,
        candidate: bool = False,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        scale: str | None = None,
        task: str | None = None,
        side: str = INPUT,
        **tensors: Tensor | None,
    ) -> Any:
        """Packed tokens after the encoder: Float[N D]. candidate: answers, which may have prompts of their own.

        Without `packed`: padded tensors of one modality, or of two to compare (`hf.features`). `tensors` are those
        of the modalities that have no standard names, such as table_value.
        """
        if packed is None:
            tensors.pop("token_type_ids", None)
            given = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "pixel_values": pixel_values,
                "pixel_mask": pixel_mask,
                "input_features": input_features,
                "input_features_mask": input_features_mask,
                **tensors,
            }
            options = {"scale": scale, "task": task, "side": side, "return_dict": return_dict}
            return self.padded_forward(given, return_loss, output_hidden_states, output_attentions, **options)
        return super().forward(packed, candidate)

    @staticmethod
    def _load_pretrained_model(model: Any, state_dict: Any, checkpoint_files: Any, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, of weights that are stored smaller too (`generalist.model.folder.stored`)."""
        if state_dict is None and checkpoint_files:
            state_dict = read_small(checkpoint_files)
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Configuration and weights, without those found in a package, and the file that trust_remote_code runs."""
        self.config.auto_map = dict(AUTO_MAP)
        if any(isinstance(modality, Proposes) for modality in self.modalities.values()):
            self.config.custom_pipelines = deepcopy(DETECTION_PIPELINE)
        own = kwargs.pop("state_dict", None) or self.state_dict()
        self.config.referred, state = refer(self, own)
        super().save_pretrained(save_directory, state_dict=state, **kwargs)
        write_remote(Path(save_directory))


class GeneralistForZeroShotImageClassification(GeneralistModel):
    """`AutoModelForZeroShotImageClassification`: pixel_values and input_ids -> logits_per_image Float[B K]."""

    main_input_name = "pixel_values"
    chooses: ClassVar[bool] = True

    def __init__(self, config: GeneralistConfig) -> None:
        super().__init__(config)
        if config.pairwise:  # transformers' pipeline tells SigLIP's law by this name; the file keeps the class's own
            self.config.model_type = PAIRWISE


class GeneralistForZeroShotAudioClassification(GeneralistModel):
    """The same for sound: input_features and input_ids -> logits_per_audio Float[B K]."""

    main_input_name = "input_features"
    chooses: ClassVar[bool] = True
