"""`AutoModelForMaskedLM`: hidden words are asked at their own tokens, among the whole vocabulary, as `Fill` asks them.

The hidden token is <|spe|>, the tokenizer's mask token. In training the vocabulary is encoded at every step.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import MaskedLMOutput
from transformers.utils.generic import can_return_tuple

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Role, Span
from generalist.hf.heads.base import Head
from generalist.tasks.candidates.names import Vocabulary
from generalist.tokenizers_mod.base.capabilities import Writes

IGNORED = -100  # label of a token that is not asked


class GeneralistForMaskedLM(Head):
    """input_ids Int[B n] -> logits Float[B n V], and the mean loss over labels that are not -100."""

    main_input_name = "input_ids"
    among = (Vocabulary.kind,)

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **tensors: Any,
    ) -> MaskedLMOutput:
        """labels: Int[B n], -100 where nothing is asked."""
        if input_ids is None:
            raise UserError("give input_ids: words are filled in texts")
        name, mine = self.one_modality({"input_ids": input_ids, "attention_mask": attention_mask, **tensors})
        if not isinstance(self.modalities[name], Writes):
            raise UserError(f"{name} has no vocabulary to choose words from; give input_ids of a text")
        if self.config.pooling != "asked":
            raise UserError(f"this model reads one answer a text (pooling {self.config.pooling!r}); it fills no words")
        members = Vocabulary.members
        asked, answer = self.sides.roles({name}, members, self.config.head_task or None)
        out = self.encode_padded(name, mine, False, output_hidden_states, output_attentions, asked)
        if out.last_hidden_state.shape[1] != 1 + input_ids.shape[1]:
            raise UserError("layers of this model change its tokens, so that none stands for a word; it fills no words")
        words = self.vocabulary_features(replace(answer, other=Vocabulary.told))
        logits = self.logits(self.head(out.last_hidden_state[:, 1:]), words, self.head_scale(name, members))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten().to(logits.device), ignore_index=IGNORED)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=out.hidden_states, attentions=out.attentions)

    @cached_property
    def entries(self) -> list[list[Span]]:
        """The vocabulary as sequences, V of them."""
        return Vocabulary().sequences(self.modalities)

    def vocabulary_features(self, role: Role) -> Tensor:
        """f of every entry, Float[V D]: with gradient in training, else kept while the weights stay."""
        made = partial(self.encode_answers, self.entries, role)
        found = self.repeated("vocabulary", None, role, made)
        return made() if found is None else found
