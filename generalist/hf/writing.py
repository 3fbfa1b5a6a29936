"""Captions through transformers' own `generate`: the model under the name that AutoModelForImageTextToText maps to.

A caption is written as in training (`Text.next_span`): [summary, x, words so far, SPE], and what is read at the SPE is
compared with the whole vocabulary. transformers wants a first token to go on from; it is the end token, which stands
for nothing here and never reaches the encoder. `generalist.model.decode` does the same with keys and values kept from
word to
word; here every step encodes anew, and in exchange everything that `generate` can do is there (beam search, sampling,
constraints, streamers).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutput

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Role, Span
from generalist.hf.model import GeneralistModel
from generalist.model.decode import decode, vocabulary_features, writing_roles
from generalist.tokenizers_mod.base.capabilities import Writes

WORDS = ("input_ids", "attention_mask")


class GeneralistForImageTextToText(GeneralistModel, GenerationMixin):
    """`generate(pixel_values=..., input_ids=...)`: the caption's ids behind those given, Int[B T].

    input_ids: what the processor makes of the caption's beginning, text="" for none. scale: the logit scale's name.
    """

    main_input_name = "input_ids"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._members: Tensor | None = None
        self._role = Role()
        self._task: str | None = None
        text = self._text(None)
        if text is not None:
            config.vocab_size = text.vocabulary
            self.generation_config.update(
                eos_token_id=text.eot, pad_token_id=text.eot, bos_token_id=text.eot, use_cache=False
            )

    def _text(self, need: str | None) -> Any:
        """The modality that takes input_ids. UserError, with what it is needed for, where there is none."""
        for modality in self.modalities.values():
            if modality.tensor_names[:1] == WORDS[:1] and isinstance(modality, Writes):
                return modality
        if need is None:
            return None
        raise UserError(f"this model has no text to {need}")

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """No cache, no positions: the words so far and the tensors of what is described."""
        own = {name for m in self.modalities.values() for name in m.tensor_names}
        return {"input_ids": input_ids, **{k: v for k, v in kwargs.items() if k in own or k == "scale"}}

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """UserError for a tensor that is no modality's."""
        self.given_modalities({k: v for k, v in model_kwargs.items() if torch.is_tensor(v)})

    def forward(self, *args: Any, **tensors: Any) -> Any:  # type: ignore[override]
        """Inside `generate`: logits of the next word, Float[B 1 V]. Elsewhere the model's own forward."""
        if self._members is None or args:
            return super().forward(*args, **tensors)
        text = self._text("write")
        written = self._written(tensors["input_ids"], tensors.get("attention_mask"))
        described = self._described(tensors)
        sequences = [[*spans, text.next_span(words)] for spans, words in zip(described, written, strict=True)]
        features = self.features(pack(sequences, self._role).to(self.device))
        logits = self.logits(features, self._members, tensors.get("scale") or self.writing_scale)
        return CausalLMOutput(logits=logits.unsqueeze(1))  # type: ignore[arg-type]

    def _described(self, tensors: dict[str, Any]) -> list[list[Span]]:
        """What stands before the words, row by row: [summary, x...]."""
        rest = {k: v for k, v in tensors.items() if k not in WORDS and torch.is_tensor(v)}
        columns = [self._rows(name, mine) for name, mine in self.given_modalities(rest).items()]
        summary = self.modalities["summary"].span(None)
        return [[summary, *spans] for spans in zip(*columns, strict=True)]

    def _beam_search(  # type: ignore[override]
        self, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **kwargs: Any
    ) -> Any:
        """Beams from the first word on, with nothing else asked for: the search of `decode`.

        There a finished beam stays among the beams, as in Uni-Perceiver (spec 1.11); transformers' own search, which
        serves all else, puts it aside and goes on with another.
        """
        settings, end = generation_config, generation_config.eos_token_id
        plain = not (settings.do_sample or settings.return_dict_in_generate or len(logits_processor))
        end = end[0] if isinstance(end, list) and len(end) == 1 else end
        if not plain or settings.num_return_sequences != 1 or input_ids.shape[1] != 1 or not isinstance(end, int):
            rest = (logits_processor, stopping_criteria, generation_config)
            return super()._beam_search(input_ids, *rest, **kwargs)
        beam, steps = settings.num_beams, settings.max_length - 1
        inputs = self._described(kwargs)[::beam]  # repeated for every beam
        assert self._members is not None
        options = {"end": end, "length_penalty": settings.length_penalty, "task": self._task}
        scale = kwargs.get("scale") or self.writing_scale
        found = decode(self, inputs, self._text("write"), self._members, scale, beam, steps, **options).ids[:, 0]
        open_ends = (found != end).sum(1).clamp(max=steps - 1)  # behind its end a row holds ends alone
        return torch.cat([input_ids[::beam], found[:, : int(open_ends.max()) + 1]], dim=1)

    @property
    def writing_scale(self) -> str:
        """The logit scale of written words: config.writing_scale, else the one of given candidates."""
        return self.config.writing_scale or self.config.zero_shot_scale

    def _written(self, ids: Tensor, mask: Tensor | None) -> list[list[int]]:
        """Behind the token that stands for the start, row by row."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        return [row[keep][1:].tolist() for row, keep in zip(ids, real, strict=True)]

    def _rows(self, name: str, tensors: dict[str, Tensor]) -> list[Span]:
        """Padded tensors of a modality, B samples -> their spans."""
        data, real = self.modalities[name].padded(tensors)
        batch = next(iter(tensors.values())).shape[0]
        count = next(iter(data.values())).shape[0] // batch
        keep = torch.ones(batch, count, dtype=torch.bool) if real is None else real.cpu()
        rows = {k: v.unflatten(0, (batch, count)).cpu() for k, v in data.items()}
        return [Span(name, {k: v[i, keep[i]] for k, v in rows.items()}, int(keep[i].sum())) for i in range(batch)]

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """transformers' generate over the vocabulary, encoded once. max_new_tokens: 20, length_penalty: 0 by default.

        scale, task: by name; as which task it is written, for a mixture of experts (`generalist.model.sides`).
        """
        text = self._text("write")
        ids = kwargs.pop("input_ids", inputs)
        mask = kwargs.pop("attention_mask", None)
        tensors = [v for v in kwargs.values() if torch.is_tensor(v)]
        if not tensors:
            raise UserError("give what is to be described, such as pixel_values")
        kwargs["input_ids"], kwargs["attention_mask"] = self._started(ids, mask, tensors[0].shape[0], text.eot)
        if "generation_config" not in kwargs and "max_length" not in kwargs:
            kwargs.setdefault("max_new_tokens", 20)
        if "generation_config" not in kwargs:
            kwargs.setdefault("length_penalty", 0.0)  # as in `decode`
        given = self.given_modalities({k: v for k, v in kwargs.items() if k not in WORDS and torch.is_tensor(v)})
        self._task = kwargs.pop("task", None)
        with self._vocabulary(text, set(given), self._task):
            return super().generate(**kwargs)

    def _started(self, ids: Tensor | None, mask: Tensor | None, batch: int, end: int) -> tuple[Tensor, Tensor]:
        """What the processor made of the beginnings -> [padding, start, words], left-padded, and its mask."""
        if ids is None:
            ids = torch.full((batch, 1), end, device=self.device)
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        rows = [row[keep] for row, keep in zip(ids, real, strict=True)]
        rows = [row[:-1] if len(row) and row[-1] == end else row for row in rows]
        longest = max(len(row) for row in rows) + 1
        started = torch.full((len(rows), longest), end, device=self.device)
        seen = torch.zeros_like(started)
        for i, row in enumerate(rows):
            started[i, longest - len(row) :] = row.to(self.device)
            seen[i, longest - len(row) - 1 :] = 1
        return started, seen

    @contextmanager
    def _vocabulary(self, text: Any, inputs: set[str], task: str | None) -> Iterator[None]:
        """The vocabulary's features, and what inputs are told, while something is written."""
        self._role, _ = writing_roles(self, inputs, task)
        self._members = vocabulary_features(self, text, self.modalities["summary"], inputs, task)
        try:
            yield
        finally:
            self._members = None
