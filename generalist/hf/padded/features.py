"""Features of one modality by name, and the table of token embeddings: what transformers' tools look for."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from generalist.data.base.errors import UserError, nearest
from generalist.hf.padded.model import CANDIDATES, PaddedModel
from generalist.model.sides import CANDIDATE, INPUT
from generalist.tokenizers_mod.base.tokenizer import Tokenizer


class FeatureModel(PaddedModel):
    """A model whose features are asked for by transformers' names."""

    @can_return_tuple
    def get_features(
        self, modality: str, side: str = "", task: str | None = None, **tensors: Any
    ) -> BaseModelOutputWithPooling:
        """Features of one modality, any of the model's: get_features("table", **processor(table=[...], ...)).

        side: "input" or "candidate"; by default a text is a candidate, as in the pipelines, and all else an input.
        task: the task that experts are chosen by.
        """
        if modality not in self.modalities:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, self.modalities)}")
        options = {k: tensors.pop(k, None) for k in ("output_hidden_states", "output_attentions")}
        mine = self.modalities[modality].given(tensors)
        if not mine:
            raise UserError(f"{modality}: its tensors are not among {sorted(tensors)}")
        side = side or (CANDIDATE if CANDIDATES in mine else INPUT)
        return self.one_side(modality, mine, side, task, **options)

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> BaseModelOutputWithPooling:
        """input_ids Int[B n], attention_mask [B n] -> output with pooler_output Float[B D]; candidates by default."""
        options.pop("token_type_ids", None)
        return self.get_features("text", input_ids=input_ids, attention_mask=attention_mask, **options)

    def get_image_features(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, **options: Any
    ) -> BaseModelOutputWithPooling:
        """pixel_values Float[B C H W], pixel_mask [B H W] -> output with pooler_output Float[B D]."""
        return self.get_features("image", pixel_values=pixel_values, pixel_mask=pixel_mask, **options)

    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **options: Any
    ) -> BaseModelOutputWithPooling:
        """input_features Float[B frames mels] and its mask -> output with pooler_output Float[B D]."""
        given = {"input_features": input_features, "input_features_mask": input_features_mask}
        return self.get_features("audio", **given, **options)

    # what peft, gradient checkpointing and resizing look for

    def get_input_embeddings(self) -> nn.Module:
        """The table of the model's first tokenizer that has one (the text's words)."""
        for tokenizer in self.tokenizers.values():
            if isinstance(tokenizer, Tokenizer) and (table := tokenizer.table()) is not None:
                return table
        raise NotImplementedError("this model has no table of token embeddings: none of its modalities is a text")

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        old = self.get_input_embeddings()
        for tokenizer in self.tokenizers.values():
            if isinstance(tokenizer, Tokenizer) and tokenizer.table() is old:
                tokenizer.set_table(value)
