"""Captions through transformers' own `generate`: the model under the name that AutoModelForImageTextToText maps to.

A caption is written as in training (`Text.next_span`): [summary, x, words so far, SPE], and what is read at the SPE is
compared with the whole vocabulary. Greedy words and beams are those of the one search, `generalist.model.decode`. What
it does not offer (sampling by transformers' rules, constraints, streamers, a beginning to go on from, scores) runs in
transformers' own loops over `forward`, which encodes anew at every word. These want a first token to go on from; it is
the end token, which stands for nothing here and never reaches the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from warnings import warn

import torch
from torch import Tensor
from transformers import GenerationMixin, StoppingCriteria
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.modeling_outputs import CausalLMOutput

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.padded.spans import spans_of
from generalist.model.decode import Anew, decode, vocabulary_features
from generalist.tokenizers_mod.base.capabilities import Writes

WORDS = ("input_ids", "attention_mask")


class Filled(StoppingCriteria):
    """Stops where the text that is written has as many tokens as the model knows positions for: `length` ids."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length, device=input_ids.device)


USUAL = (MaxLengthCriteria, EosTokenCriteria, Filled)  # ends that `decode` knows too


class GeneralistForImageTextToText(GeneralistModel, GenerationMixin):
    """`generate(pixel_values=..., input_ids=...)`: the caption's ids behind those given, Int[B T].

    input_ids: what the processor makes of the caption's beginning, text="" for none. scale: the logit scale's name.
    """

    main_input_name = "input_ids"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._members: Tensor | None = None
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
        scale = tensors.get("scale") or self.writing_scale
        writer = Anew(self, self._described(tensors), text, scale, self._task)
        writer.words = self._written(tensors["input_ids"], tensors.get("attention_mask"))
        logits = self.logits(writer.features(), self._members, scale)
        return CausalLMOutput(logits=logits.unsqueeze(1))  # type: ignore[arg-type]

    def _described(self, tensors: dict[str, Any]) -> list[list[Span]]:
        """What stands before the words, row by row: [summary, x...]."""
        rest = {k: v for k, v in tensors.items() if k not in WORDS and torch.is_tensor(v)}
        looks = self.encoder.placed or self.encoder.mapped
        given = self.given_modalities(rest).items()
        columns = [spans_of(self.modalities[name], name, mine, looks)[0] for name, mine in given]
        summary = self.modalities["summary"].span(None)
        return [[summary, *spans] for spans in zip(*columns, strict=True)]

    def _beam_search(self, input_ids: Tensor, *asked: Any, **kwargs: Any) -> Any:
        """The beams of `decode`, among which a finished one stays, as in Uni-Perceiver (spec 1.11); transformers' own
        search, which serves all that `decode` does not offer, puts it aside and goes on with another."""
        found = self._decoded(input_ids, *asked, **kwargs)
        return super()._beam_search(input_ids, *asked, **kwargs) if found is None else found

    def _sample(self, input_ids: Tensor, *asked: Any, **kwargs: Any) -> Any:
        """Greedy words by `decode`; sampled ones by transformers."""
        found = self._decoded(input_ids, *asked, **kwargs)
        return super()._sample(input_ids, *asked, **kwargs) if found is None else found

    def _decoded(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Tensor | None:
        """What `decode` writes from the first word on; None where more is asked for than it offers."""
        settings, end = generation_config, generation_config.eos_token_id
        end = end[0] if isinstance(end, list) and len(end) == 1 else end
        usual = all(isinstance(one, USUAL) for one in stopping_criteria)
        more = settings.do_sample or settings.return_dict_in_generate or len(logits_processor) or streamer is not None
        if more or not usual or input_ids.shape[1] != 1 or not isinstance(end, int):
            return None
        text, beam, best = self._text("write"), settings.num_beams, settings.num_return_sequences
        steps = min(settings.max_length - 1, text.max_length)
        repeats = max(beam, best)  # transformers repeats what is described so often
        inputs = self._described(kwargs)[::repeats]
        assert self._members is not None
        options = {"end": end, "length_penalty": settings.length_penalty, "task": self._task}
        scale = kwargs.get("scale") or self.writing_scale
        found = decode(self, inputs, text, self._members, scale, beam, steps, **options).ids[:, :best]
        found = found.flatten(0, 1)
        open_ends = (found != end).sum(1).clamp(max=steps - 1)  # behind its end a row holds ends alone
        begun = input_ids[::repeats].repeat_interleave(best, dim=0)
        return torch.cat([begun, found[:, : int(open_ends.max()) + 1]], dim=1)

    @property
    def writing_scale(self) -> str:
        """The logit scale of written words: config.writing_scale, else the one of given candidates."""
        return self.config.writing_scale or self.config.zero_shot_scale

    def _written(self, ids: Tensor, mask: Tensor | None) -> list[list[int]]:
        """Behind the token that stands for the start, row by row."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        return [row[keep][1:].tolist() for row, keep in zip(ids, real, strict=True)]

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """transformers' generate over the vocabulary, encoded once. max_new_tokens: 20 or what its text
        holds, length_penalty: 0 by default. A text ends at the model's length (`Text.max_length`), whatever is asked.

        scale, task: by name; as which task it is written, for a mixture of experts (`generalist.model.sides`).
        """
        text = self._text("write")
        ids = kwargs.pop("input_ids", inputs)
        mask = kwargs.pop("attention_mask", None)
        tensors = [v for v in kwargs.values() if torch.is_tensor(v)]
        if not tensors:
            raise UserError("give what is to be described, such as pixel_values")
        kwargs["input_ids"], kwargs["attention_mask"] = self._started(ids, mask, tensors[0].shape[0], text.eot)
        begun, most = kwargs["input_ids"].shape[1] - 1, text.max_length
        if begun >= most:
            raise UserError(f"the beginning has {begun} of the {most} tokens that a text may have; give a shorter one")
        if (wanted := kwargs.get("max_new_tokens") or 0) > most - begun:
            warn(f"{wanted} words asked for; a text of this model ends after {most} tokens", stacklevel=2)
        kwargs["stopping_criteria"] = [*(kwargs.get("stopping_criteria") or []), Filled(most + 1)]
        if "generation_config" not in kwargs and "max_length" not in kwargs:
            kwargs.setdefault("max_new_tokens", min(20, text.max_length))
        if "generation_config" not in kwargs:
            kwargs.setdefault("length_penalty", 0.0)  # as in `decode`
            kwargs.setdefault("eos_token_id", text.eot)  # which transformers forgets of a model that is loaded
            kwargs.setdefault("pad_token_id", text.eot)
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
        """The vocabulary's features, while something is written."""
        self._members = vocabulary_features(self, text, self.modalities["summary"], inputs, task)
        try:
            yield
        finally:
            self._members = None
