"""One running model and many prompt files: each sequence of a batch wears its own set, or none.

    worn = PromptedModel(model, {"birds": "a/prompts.safetensors", "cars": "b/prompts.safetensors"})
    p = worn.rank(inputs, candidates, prompts=["birds", None, "cars", "birds"])         # Float[4 K]

A set is more than prompts: its norms, summary bias and linear head go with it (Uni-Perceiver, 2112.01522, section 3.4;
spec section 4), so its sequences take their own pass through all layers. A batch is therefore split by set, one pass
for each set that occurs; packed tokens are never padded, so that the passes have together the tokens of the one. A
batch with one set or none is one pass, as without this module. A set is a few kilobytes; the weights stay one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from generalist.adapt.kept import read_part, wearing
from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import Packed, Span
from generalist.hf.model import GeneralistModel
from generalist.model.sides import INPUT, is_candidate

Sequences = Sequence[Sequence[Span]]


class PromptedModel:
    """A model with prompt sets at hand. None among `prompts` is the model as it stands.

    Not for several threads at once: a set is on the model while its sequences are computed.
    """

    def __init__(
        self, model: GeneralistModel, sets: Mapping[str, str | Path | dict[str, Tensor]] | None = None
    ) -> None:
        self.model = model
        self.sets: dict[str, dict[str, Tensor]] = {}
        for name, given in (sets or {}).items():
            self.add(name, given)

    def add(self, name: str, given: str | Path | dict[str, Tensor]) -> None:
        """Take a prompt file, or its tensors, under a name. UserError: not readable, or of another model."""
        self.sets[name] = given if isinstance(given, dict) else read_part(Path(given), self.model)

    def remove(self, name: str) -> None:
        """Forget a set. UserError: there is none of that name."""
        self._known(name)
        del self.sets[name]

    @torch.no_grad()
    def encode(
        self, sequences: Sequences, prompts: Sequence[str | None], side: str = INPUT, task: str | None = None
    ) -> Tensor:
        """Sequences asked at one token each -> unit vectors Float[B D], each under its own set.

        side and task: as of `GeneralistModel.encode`.
        """

        def unit(own: Sequences) -> tuple[Packed, Tensor]:
            packed = self.model.packed_side(own, side, None, task)
            return packed, normalize(self.model.features(packed, is_candidate(side)).float(), dim=-1)

        return self._each(sequences, prompts, unit)

    @torch.no_grad()
    def log_likelihood(
        self,
        inputs: Sequences,
        candidates: Sequences,
        prompts: Sequence[str | None],
        scale: str = "default",
        task: str | None = None,
    ) -> Tensor:
        """log p(candidate | input), each input and its candidates under the input's set: Float[M K] (or [M a K])."""
        if len(candidates) < 2:
            raise UserError(f"{len(candidates)} candidate given: a likelihood needs at least two to choose among")

        def scored(own: Sequences) -> tuple[Packed, Tensor]:
            asked, answers = self.model.packed_sides(own, candidates, task)
            queries, keys = self.model.encode_together([asked, answers])
            return asked, self.model.score(queries, keys, scale)

        return self._each(inputs, prompts, scored)

    def rank(
        self,
        inputs: Sequences,
        candidates: Sequences,
        prompts: Sequence[str | None],
        scale: str = "default",
        task: str | None = None,
    ) -> Tensor:
        """Probabilities of the candidates: Float[M K], rows sum to one."""
        return self.log_likelihood(inputs, candidates, prompts, scale, task).exp()

    def _each(
        self, sequences: Sequences, prompts: Sequence[str | None], compute: Callable[[Sequences], tuple[Packed, Tensor]]
    ) -> Tensor:
        """One pass a set that occurs; rows [M ...] of the asked tokens in the order of the sequences."""
        if len(prompts) != len(sequences):
            raise UserError(f"{len(prompts)} prompts for {len(sequences)} inputs; give one a input, None for none")
        rows, owner = [], []
        for name in dict.fromkeys(prompts):
            own = [i for i, given in enumerate(prompts) if given == name]
            with self._wearing(name):
                packed, found = compute([sequences[i] for i in own])
            rows.append(found)
            owner.append(torch.tensor(own, device=packed.asked_owner.device)[packed.asked_owner])
        if len(rows) == 1:
            return rows[0]
        return torch.cat(rows)[torch.cat(owner).argsort(stable=True)]

    @contextmanager
    def _wearing(self, name: str | None) -> Iterator[None]:
        if name is None:
            yield
            return
        with wearing(self.model, self._known(name)):
            yield

    def _known(self, name: str) -> dict[str, Tensor]:
        if name not in self.sets:
            raise UserError(f"no prompts {name!r} at hand; {nearest(name, self.sets)}")
        return self.sets[name]
