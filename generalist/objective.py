"""A batch -> the summed negative log-likelihood of its answers. The law, applied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data.pack import pack
from data.types import Batch, Packed
from generalist.distributed import gather
from generalist.model import GeneralistModel
from tasks.candidates import CandidateSet
from tasks.likelihood import log_likelihood, negative_log_likelihood, symmetric
from tokenizers_mod.base import Modality


def same_answer(keys: Tensor | None) -> Tensor:
    """Which partners over all ranks are each own row's answer, as a distribution: Int[B] -> Float[B W*B]."""
    assert keys is not None
    same = (keys.unsqueeze(1) == gather(keys).unsqueeze(0)).float()
    return same / same.sum(-1, keepdim=True)


class Objective(nn.Module):
    """Holds the model and the shared candidate sets (packed once, encoded once a step)."""

    def __init__(
        self, model: GeneralistModel, sets: dict[str, CandidateSet], modalities: dict[str, Modality]
    ) -> None:
        super().__init__()
        self.model = model
        self.sets = sets
        self._sequences = {name: chosen.sequences(modalities) for name, chosen in sets.items()}
        self._packed: dict[str, Packed] = {}

    def packed(self, name: str) -> Packed:
        """The members of a shared set as one packed batch on the model's device."""
        if name not in self._packed:
            self._packed[name] = pack(self._sequences[name]).to(self.model.device)
        return self._packed[name]

    def forward(self, batch: Batch) -> Tensor:
        """Sum of -log p over the batch's answers: [1]."""
        scale = self.model.log_scale(batch.scale)
        if batch.partners is not None:
            queries, partners = self.model.encode_together([batch.inputs, batch.partners])
            target = same_answer(batch.keys)
            forward = log_likelihood(queries, gather(partners), scale)
            backward = log_likelihood(partners, gather(queries), scale)
            return symmetric(forward, backward, target, batch.smoothing)[0]
        assert batch.candidates is not None and batch.inputs.labels is not None
        chosen = self.sets[batch.candidates]
        queries, members = self.model.encode_together([batch.inputs, self.packed(batch.candidates)])
        log_p = log_likelihood(queries, members, scale)
        target = chosen.target(batch.inputs.labels)
        total, _ = negative_log_likelihood(log_p, target, batch.smoothing)
        extra = chosen.penalty(log_p, batch.inputs.labels)
        return total if extra is None else total + extra
