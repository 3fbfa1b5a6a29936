"""Among what the answer is sought: a set of candidates that every sample of a task shares.

A set gives its members as sequences of spans (asked at their summary token, encoded by the same model
as the inputs), turns labels into targets over its members, and keeps what is needed to read an answer
off a likelihood. Sets are saved with the model, so a prediction needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, ClassVar
from warnings import warn

import torch
from jaxtyping import Shaped
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.labels import alike
from generalist.data.base.named import named as by_name
from generalist.data.batch.types import Role, Span
from generalist.tasks.candidates.base import CandidateSet as CandidateSet
from generalist.tasks.candidates.base import Worded as Worded
from generalist.tasks.candidates.number_sets import Numbers as Numbers
from generalist.tasks.candidates.number_sets import Residuals as Residuals
from generalist.tasks.candidates.templates import TEMPLATED as TEMPLATED
from generalist.tasks.candidates.templates import TEMPLATES as TEMPLATES
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Writes

SAME = (
    "candidates {!r} and {!r} are the same to the text tokenizer, so neither could be answered; "
    "write them alike in the data, or as words that differ"
)


@dataclass
class Names(CandidateSet):
    """Class names or answers as text: [summary, name].

    synonyms: {name: other names of the same thing}; training draws one of name and synonyms for each batch
    (Uni-Perceiver spec 1.9), evaluation and prediction ask for the name itself.
    templates: words around the name, with {} in its place; training puts one of them around all names of some batches
    (`TEMPLATED`), so that names are known in the words that clients put around them.
    """

    names: list[str]
    synonyms: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    templates: list[str] = field(default_factory=list, kw_only=True)
    kind: ClassVar[str] = "names"

    def __post_init__(self) -> None:
        if isinstance(self.names, str):  # one name, not its letters
            self.names = [self.names]
        self.names = [str(name) for name in self.names]
        if len(self.names) < 2:
            raise UserError(f"{len(self.names)} candidate(s) given: a likelihood needs at least two to choose among")
        if len(set(self.names)) != len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise UserError(f"candidates stand twice: {twice}; every name must be there once")
        if lost := sorted(set(self.synonyms) - set(self.names)):
            raise UserError(f"synonyms of {lost[0]!r}, which is no candidate; {nearest(lost[0], self.names)}")

        if wrong := [template for template in self.templates if "{}" not in template]:
            raise UserError(f"the template {wrong[0]!r} has no {{}} for the name")

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        found = self.asked(modalities, self.names)
        for one, other in self.twins(found):
            raise UserError(SAME.format(one, other))
        return found

    def twins(self, found: list[list[Span]]) -> list[tuple[str, str]]:
        """Names whose sequences are the same to the text tokenizer, each with the first of its kind."""
        seen: dict[tuple[bytes, ...], str] = {}
        tokens = contents([spans[1] for spans in found])
        firsts = [seen.setdefault(held, name) for name, held in zip(self.names, tokens, strict=True)]
        return [(first, name) for first, name in zip(firsts, self.names, strict=True) if first != name]

    def teachable(self, found: list[list[Span]]) -> None:
        """Names that are one name but for case and space are the data's mistake: UserError. A tokenizer of few words
        or few tokens may be a trial's: it is said, and the others are learnt."""
        twins = self.twins(found)
        for one, other in twins:
            if alike(one) == alike(other):
                raise UserError(SAME.format(one, other))
        if twins:
            one, other = twins[0]
            warn(
                f"the text tokenizer cannot tell {len(twins)} of {len(self.names)} candidates from another, like "
                f"{one!r} and {other!r}, and they will not be answered: it does not know their words or cuts them "
                "short; give it a larger vocabulary or max_length",
                stacklevel=3,
            )

    def against(self, logits: Tensor) -> Tensor:
        """Logits of the names, Float[... K]: they stand against one another as they are."""
        return logits

    def asked(self, modalities: dict[str, Modality], words: list[str]) -> list[list[Span]]:
        """The sequences of these words, asked at their summaries."""
        if "text" not in modalities:
            raise UserError('names are words: to choose among them the modality "text" is needed')
        summary = modalities["summary"].span(None).ask([0])
        return [[summary, span] for span in modalities["text"].many(words)]

    def templates_of(self, modalities: dict[str, Modality]) -> list[str]:
        """Those in which every name still fits into the text's length, the longest deciding."""
        text: Any = modalities["text"]
        words = [*self.names, *(other for others in self.synonyms.values() for other in others)]
        lengths = [span.length for span in text.many(words)]
        longest = words[lengths.index(max(lengths))]
        worn = text.many([template.replace("{}", longest) for template in self.templates])
        return [t for t, span in zip(self.templates, worn, strict=True) if span.length < text.max_length]

    def worded(self, modalities: dict[str, Modality], template: str) -> Worded:
        others = {i: self.synonyms[name] for i, name in enumerate(self.names) if self.synonyms.get(name)}
        words = [*self.names, *(other for names in others.values() for other in names)]
        made = iter(self.asked(modalities, [template.replace("{}", word) for word in words]))
        found = [next(made) for _ in self.names]
        if template == "{}":
            self.teachable(found)
        return Worded(found, {i: [next(made) for _ in names] for i, names in others.items()})

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        return list(self.names)

    def misfits(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        """-log p with Platt's targets (1999, section 2.2): of n answers one more is thought wrong, in whatever way.

        Where all n are right, no certainty follows from it.
        """
        asked = labels >= 0
        own = log_p[asked].gather(-1, labels[asked].unsqueeze(-1)).squeeze(-1)
        others = (log_p[asked].sum(-1) - own) / (log_p.shape[-1] - 1)
        wrong = 1 / (len(own) + 2)
        return -((1 - wrong) * own + wrong * others)

    def offered(self) -> list[str]:
        return list(self.names)

    def in_template(self, template: str) -> CandidateSet:
        if template == "{}":
            return self
        return replace(self, names=[template.format(name) for name in self.names], synonyms={})


@dataclass
class ObjectNames(Names):
    """What a proposal can show: "nothing" and the class names, in this order; labels count from nothing = 0.

    nothing: weight of -log p of a proposal without an object (guess: .2; the paper's losses are in its appendix).
    """

    nothing: float = 0.2
    kind: ClassVar[str] = "objects"

    def misfits(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        return None  # what is detected goes by thresholds on these probabilities

    def target(self, labels: Shaped[Tensor, "M ..."]) -> Shaped[Tensor, "M ..."]:
        """Int[M] -> Float[M K], the one-hot label times its weight; NaN rows where a proposal is not asked (-1)."""
        hot = torch.nn.functional.one_hot(labels.clamp(min=0), len(self.names)).float()
        weight = torch.where(labels == 0, self.nothing, 1.0)
        return torch.where((labels < 0).unsqueeze(-1), torch.nan, hot * weight.unsqueeze(-1))


@dataclass
class Vocabulary(CandidateSet):
    """Every entry of the text tokenizer's vocabulary as a two-token text: [summary, entry, end of text]."""

    kind: ClassVar[str] = "vocabulary"
    told: ClassVar[tuple[str, ...]] = ("text", "vision")  # of inputs, whatever they hold

    def role(self, task: str = "") -> Role:
        """The same for every task, so that one encoding serves them all (Uni-Perceiver spec 3.2)."""
        return Role(target=True, other=self.told, task=task)

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        summary, text = modalities["summary"], writer(modalities)
        return [[summary.span(None).ask([0]), span] for span in text.vocabulary_spans()]

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        text = writer(modalities)
        return [text.decode([i]) for i in range(text.vocabulary)]


def contents(spans: list[Span]) -> Iterator[tuple[bytes, ...]]:
    """What the spans of one modality hold: of two that are the same to it, the same."""
    columns = []
    for key in spans[0].data:
        values = [span.data[key] for span in spans]
        ends = [0, *accumulate(value.nbytes for value in values)]
        whole = torch.cat(values).numpy().tobytes()
        columns.append([whole[start:end] for start, end in pairwise(ends)])
    return zip(*columns, strict=True)


def writer(modalities: dict[str, Modality]) -> Writes:
    """The text over whose vocabulary answers are written. UserError where it has none."""
    text = modalities["text"]
    if not isinstance(text, Writes):
        raise UserError(f"modality text, a {type(text).__name__}, has no vocabulary to write with; use a Text")
    return text


SETS: tuple[type[CandidateSet], ...] = (Names, ObjectNames, Vocabulary, Numbers, Residuals)
KINDS: dict[str, type[CandidateSet]] = {kind.kind: kind for kind in SETS}
ELSEWHERE = {
    "codes": "generalist.tasks.candidates.codebook:Codes",
    "marks": "generalist.tasks.kinds.multilabel:Marks",
}  # sets in files of their own, which import this one


def candidate_set(values: dict[str, Any]) -> CandidateSet:
    """The inverse of `to_dict`."""
    values = dict(values)
    kind = values.pop("kind", "")
    if kind in ELSEWHERE:
        return by_name(ELSEWHERE[kind])(**values)
    if kind not in KINDS:
        raise UserError(f"unknown kind of candidate set {kind!r}; {nearest(kind, [*KINDS, *ELSEWHERE])}")
    return KINDS[kind](**values)
