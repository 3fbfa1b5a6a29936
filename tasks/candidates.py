"""Among what the answer is sought: a set of candidates that every sample of a task shares.

A set gives its members as sequences of spans (asked at their summary token, encoded by the same model
as the inputs), turns labels into targets over its members, and keeps what is needed to read an answer
off a likelihood. Sets are saved with the model, so a prediction needs nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import Role, Span
from generalist.tasks import ridge
from generalist.tasks.answers import Answer
from generalist.tasks.templates import TEMPLATED as TEMPLATED
from generalist.tasks.templates import TEMPLATES as TEMPLATES
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers import bins


@dataclass(frozen=True)
class Worded:
    """Members as training asks for them: their sequences, and for some, by number, other sequences of the same thing.

    Training takes one of a member's sequences at random each batch.
    """

    sequences: list[list[Span]]
    variants: dict[int, list[list[Span]]]


@dataclass
class CandidateSet(ABC):
    """Base of the shared sets: a dataclass of JSON values."""

    kind: ClassVar[str] = ""
    members: ClassVar[tuple[str, ...]] = ("text",)  # modalities of the members, besides the summary
    # kinds that the inputs of its task hold; not a setting, the task tells
    asked_of: ClassVar[tuple[str, ...]] = ("vision",)

    @abstractmethod
    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        """The K members as sequences of spans, each asked at its summary token."""

    def templates_of(self, modalities: dict[str, Modality]) -> list[str]:
        """Templates that training puts around all members of a batch now and then."""
        return []

    def worded(self, modalities: dict[str, Modality], template: str) -> Worded:
        """The members in a template, "{}" for none."""
        return Worded(self.sequences(modalities), {})

    @abstractmethod
    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        """The K members in words."""

    def target(self, labels: Tensor) -> Tensor:
        """Labels of asked tokens -> what `negative_log_likelihood` takes: int [...] or Float[... K]."""
        return labels

    def answers(self, labels: Tensor) -> int:
        """How many answers these labels ask for: indices >= 0, or distributions Float[... K] that are not NaN."""
        return int((~labels.isnan().any(-1) if labels.is_floating_point() else labels >= 0).sum())

    def penalty(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        """A term added to the summed negative log-likelihood, or None."""
        return None

    def misfit(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        """How badly probabilities fit the labels: a proper score, the mean of all asked, that chooses a temperature.

        None where no temperature is wanted.
        """
        return None

    def offered(self) -> list[str]:
        """The names among which one is chosen; [] where members are no names."""
        return []

    def choices(self) -> list[str]:
        """The names that an answer may say, of which `shares` tells the probabilities; [] where it says none."""
        return self.offered()

    def shares(self, log_p: Tensor) -> Tensor:
        """The probability of every choice: Float[... K] -> Float[... choices]."""
        return log_p.exp()

    def in_template(self, template: str) -> CandidateSet:
        """The set whose names stand in a template, "{}" in the place of the name; other sets as they are."""
        return self

    def read_off(self, log_p: Tensor, modalities: dict[str, Modality]) -> Answer:
        """What a likelihood over the members says, Float[K]: the members by probability, or what number it is."""
        p, order = log_p.exp().sort(descending=True)
        names = self.labels(modalities)
        return Answer([names[i] for i in order.tolist()], p.tolist())

    def role(self, task: str = "") -> Role:
        """What a mixture of experts is told of the members."""
        return Role(target=True, other=self.asked_of, task=task)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


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
        found = [self.sequence(modalities, name) for name in self.names]
        seen: dict[tuple[bytes, ...], str] = {}
        for name, spans in zip(self.names, found, strict=True):
            tokens = tuple(value.numpy().tobytes() for value in spans[1].data.values())
            if (other := seen.setdefault(tokens, name)) != name:
                raise UserError(
                    f"candidates {other!r} and {name!r} are the same to the text tokenizer, so neither could be "
                    "answered; write them alike in the data, or as words that differ"
                )
        return found

    def sequence(self, modalities: dict[str, Modality], name: str) -> list[Span]:
        if "text" not in modalities:
            raise UserError('names are words: to choose among them the modality "text" is needed')
        summary, text = modalities["summary"], modalities["text"]
        return [summary.span(None).ask([0]), text.span(text.read(name))]

    def templates_of(self, modalities: dict[str, Modality]) -> list[str]:
        """Those in which every name still fits into the text's length, the longest deciding."""
        text: Any = modalities["text"]
        words = [*self.names, *(other for others in self.synonyms.values() for other in others)]
        longest = max(words, key=lambda word: text.span(text.read(word)).length)
        return [t for t in self.templates if text.span(text.read(t.replace("{}", longest))).length < text.max_length]

    def worded(self, modalities: dict[str, Modality], template: str) -> Worded:
        def asked(name: str) -> list[Span]:
            return self.sequence(modalities, template.replace("{}", name))

        others = ((i, self.synonyms.get(name, [])) for i, name in enumerate(self.names))
        variants = {i: [asked(other) for other in names] for i, names in others if names}
        return Worded([asked(name) for name in self.names], variants)

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        return list(self.names)

    def misfit(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        """-log p with Platt's targets (1999, section 2.2): of n answers one more is thought wrong, in whatever way.

        Where all n are right, no certainty follows from it.
        """
        asked = labels >= 0
        own = log_p[asked].gather(-1, labels[asked].unsqueeze(-1)).squeeze(-1)
        others = (log_p[asked].sum(-1) - own) / (log_p.shape[-1] - 1)
        wrong = 1 / (len(own) + 2)
        return -((1 - wrong) * own + wrong * others).mean()

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

    def misfit(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        return None  # what is detected goes by thresholds on these probabilities

    def target(self, labels: Tensor) -> Tensor:
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
        summary, text = modalities["summary"], modalities["text"]
        return [[summary.span(None).ask([0]), span] for span in text.vocabulary_spans()]  # type: ignore[attr-defined]

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        text = modalities["text"]
        return [text.decode([i]) for i in range(text.vocabulary)]  # type: ignore[attr-defined]


@dataclass
class Numbers(CandidateSet):
    """K bins of a standardised value as number tokens: [summary, number]; labels are values.

    edges: K + 1 increasing bin edges in z units; sigma: width of the Gaussian soft label (HL-Gauss),
    in bins. value = z * std + mean. auxiliary: weight of the squared error of the expectation (of values within the
    edges), 0 for the pure law.
    """

    edges: list[float]
    sigma: float = 2.0
    mean: float = 0.0
    std: float = 1.0
    auxiliary: float = 0.0
    kind: ClassVar[str] = "numbers"
    members: ClassVar[tuple[str, ...]] = ("number",)

    def __post_init__(self) -> None:
        if len(self.edges) < 3:
            raise UserError("number candidates need at least two bins (three edges)")

    def _edges(self, like: Tensor) -> Tensor:
        return torch.tensor(self.edges, device=like.device, dtype=torch.float32)

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        summary, number = modalities["summary"], modalities["number"]
        centres = bins.centres(torch.tensor(self.edges))
        return [[summary.span(None).ask([0]), number.span(number.read([float(c)]))] for c in centres]

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        centres = bins.centres(torch.tensor(self.edges)) * self.std + self.mean
        return [f"{c:.4g}" for c in centres.tolist()]

    def target(self, labels: Tensor) -> Tensor:
        return bins.soft_labels(labels.float(), self._edges(labels), self.sigma)

    def answers(self, labels: Tensor) -> int:
        return int((~labels.isnan()).sum())

    def penalty(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        if not self.auxiliary:
            return None
        z = labels.float()
        # a value beyond the last bin cannot be answered: without the bound one sample would be the whole gradient
        known = z.nan_to_num().clamp(self.edges[0], self.edges[-1])
        error = (self.expectation(log_p) - known) ** 2
        return self.auxiliary * (error * ~z.isnan()).sum().reshape(1)

    def misfit(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        real = ~labels.isnan()
        return self.crps(log_p[real].float(), labels[real].float()).mean()

    def expectation(self, log_p: Tensor) -> Tensor:
        """Mean of the distribution in z units: [... K] -> [...]."""
        return bins.expectation(log_p.exp(), bins.centres(self._edges(log_p)))

    def quantile(self, log_p: Tensor, q: float) -> Tensor:
        """Quantile in z units: [... K] -> [...]."""
        return bins.quantile(log_p.exp(), self._edges(log_p), torch.tensor([q])).squeeze(-1)

    def read_off(self, log_p: Tensor, modalities: dict[str, Modality]) -> Answer:
        low, value, high = (float(self.quantile(log_p, q) * self.std + self.mean) for q in (0.1, 0.5, 0.9))
        mean = float(self.expectation(log_p) * self.std + self.mean)
        return Answer(value=value, mean=mean, interval=(low, high))

    def crps(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """Continuous ranked probability score in z units: [... K], [...] -> [...]."""
        return bins.crps(log_p.exp(), self._edges(log_p), labels.float())


@dataclass
class Residuals(Numbers):
    """Number candidates for what a linear forecast leaves over: label = z - location(past).

    weights: the matrix of `generalist.tasks.ridge` as text; context: its rows, the past values that it reads.
    """

    weights: str = ""
    context: int = 1
    kind: ClassVar[str] = "residuals"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.matrix = ridge.from_text(self.weights, self.context)

    def location(self, past: Tensor) -> Tensor:
        """The linear forecast of a normalised past: [t] -> [h], in z units."""
        return ridge.newest(past, self.context).float() @ self.matrix


SETS: tuple[type[CandidateSet], ...] = (Names, ObjectNames, Vocabulary, Numbers, Residuals)
KINDS: dict[str, type[CandidateSet]] = {kind.kind: kind for kind in SETS}
ELSEWHERE = {
    "codes": "generalist.tasks.codebook:Codes",
    "marks": "generalist.tasks.multilabel:Marks",
}  # sets in files of their own, which import this one


def candidate_set(values: dict[str, Any]) -> CandidateSet:
    """The inverse of `to_dict`."""
    values = dict(values)
    kind = values.pop("kind", "")
    if kind in ELSEWHERE:
        module, _, name = ELSEWHERE[kind].partition(":")
        return getattr(import_module(module), name)(**values)
    if kind not in KINDS:
        raise UserError(f"unknown kind of candidate set {kind!r}; {nearest(kind, [*KINDS, *ELSEWHERE])}")
    return KINDS[kind](**values)
