"""The model in EleutherAI's lm-evaluation-harness, by likelihood.

    python -m generalist.clients.lm_eval run --model generalist --model_args pretrained=FOLDER --tasks NAME

The harness asks log p(continuation | context). Two of this model's likelihoods can answer:

    by=candidates   the continuations that a document offers are the candidates: one law, normalised among them
    by=words        the continuation's words one after another, each among the vocabulary, the end among them; for
                    models that were trained to write behind a text
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.predict import load_model
from generalist.model.decode import decode, vocabulary_features, writing_roles

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise UserError(f"{error}: pip install 'generalist-encoder[benchmarks]' brings the evaluation harness") from error

WAYS = ("candidates", "words")


@register_model("generalist")
class GeneralistLM(LM):
    """pretrained: a run's or a model's folder; scale: a logit scale's name, by default that of given candidates.

    task: as which task of the model it is asked, for a mixture of experts (`generalist.model.sides`).
    """

    def __init__(
        self,
        pretrained: str,
        by: str = "candidates",
        scale: str = "",
        task: str = "",
        batch_size: int | str = 64,
        device: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        if by not in WAYS:
            raise UserError(f"by={by!r}; {nearest(by, WAYS)} (valid: {', '.join(WAYS)})")
        self.model, self.processor = load_model(Path(pretrained))
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "cpu"  # the harness' own default is a GPU
        self.model.to(device).eval()
        self.task = task or None
        self.by, self.scale = by, scale or self.model.config.zero_shot_scale
        self.model.log_scale(self.scale)  # a wrong name ends here
        self.batch = int(batch_size) if str(batch_size).isdigit() else 64
        self.text: Any = self.processor.built.get("text")
        if self.text is None:
            raise UserError("this model has no modality 'text'; the harness asks in texts")
        self._members: torch.Tensor | None = None

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """One (log p, is it the likeliest) a request, whose args are (context, continuation)."""
        return self._among(requests) if self.by == "candidates" else self._written([r.args for r in requests])

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """log p of whole texts, word by word. UserError for candidates, of which a text alone has none."""
        if self.by != "words":
            raise UserError("a text alone has no candidates; give model_args by=words")
        return [p for p, _ in self._written([("", r.args[0]) for r in requests])]

    @torch.no_grad()
    def generate_until(self, requests: list[Any]) -> list[str]:
        """Greedy answers, cut at the first of `until`."""
        written = []
        for request in requests:
            context, options = request.args
            steps = min(int(options.get("max_gen_toks", self.text.max_length)), self.text.max_length)
            question, options_of = [self._asked(context, False)], {"steps": steps, "task": self.task}
            found = decode(self.model, question, self.text, self.members, self.scale, **options_of)
            answer = self.text.decode(found.words(0))
            for stop in [options["until"]] if isinstance(options.get("until"), str) else options.get("until") or []:
                answer = answer.partition(stop)[0] if stop else answer
            written.append(answer)
        return written

    @property
    def members(self) -> torch.Tensor:
        """The vocabulary, encoded once."""
        if self._members is None:
            summary = self.processor.built["summary"]
            self._members = vocabulary_features(self.model, self.text, summary, {"text"}, self.task)
        return self._members

    def _asked(self, context: str, at_summary: bool = True) -> list[Span]:
        """[summary, context], or the summary alone where there is no context."""
        summary = self.processor.summary()
        spans = [summary if at_summary else replace(summary, asked=None)]
        return [*spans, self.processor.span("text", context)] if context.strip() else spans

    def _among(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Requests of one document and context are each other's candidates."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.task_name, request.doc_id, request.args[0]), []).append(i)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for (_, document, context), members in groups.items():
            names = [requests[i].args[1].strip() for i in members]
            distinct = list(dict.fromkeys(names))
            if len(distinct) < 2:
                raise UserError(
                    f"document {document} offers {len(distinct)} continuation; candidates are two or more: "
                    "give model_args by=words"
                )
            candidates = self.processor.candidates(distinct)
            log_p = self.model.log_likelihood([self._asked(context)], candidates, self.scale, self.task)[0]
            best = distinct[int(log_p.argmax())]
            for i, name in zip(members, names, strict=True):
                found[i] = (float(log_p[distinct.index(name)]), name == best)
        return found

    @torch.no_grad()
    def _written(self, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Sums over the words of each continuation, its end among them."""
        found = []
        for start in range(0, len(pairs), self.batch):
            part = pairs[start : start + self.batch]
            spans = [self.text.caption_span(self.text.read(answer.strip())) for _, answer in part]
            sequences = [[*self._asked(context, False), span] for (context, _), span in zip(part, spans, strict=True)]
            role, _ = writing_roles(self.model, {"text"}, self.task)
            features = self.model.features(pack(sequences, role).to(self.model.device))
            log_p = self.model.score(features, self.members, self.scale).cpu()
            for rows, span in zip(log_p.split([len(s.labels) for s in spans]), spans, strict=True):
                own = rows.gather(1, span.labels.unsqueeze(1)).squeeze(1)
                found.append((float(own.sum()), bool((rows.argmax(-1) == span.labels).all())))
        return found


def main() -> None:
    """The harness' own command with this model known to it."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
