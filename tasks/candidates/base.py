"""Among what an answer is sought: the base of the sets of candidates that every sample of a task shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from generalist.data.batch.types import Role, Span
from generalist.tasks.candidates.answers import Answer
from generalist.tokenizers_mod.base.base import Modality


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
    several: ClassVar[bool] = False  # several members may be right at once, each beside its denial
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

    def misfits(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        """How badly probabilities fit each label that is asked: a proper score, Float[n], that chooses a temperature.

        None where no temperature is wanted.
        """
        return None

    def changed(self, before: Tensor, after: Tensor) -> Tensor:
        """Whether the answer is another one: log p Float[... K] twice -> Bool[...]."""
        return before.argmax(-1) != after.argmax(-1)

    def misfit(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        """The mean of `misfits`."""
        found = self.misfits(log_p, labels)
        return None if found is None else found.mean()

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

    def asked_by(self, kinds: tuple[str, ...]) -> None:
        """These kinds of input are answered; of other sets of the class it stays as it is."""
        vars(self)["asked_of"] = kinds

    def role(self, task: str = "") -> Role:
        """What a mixture of experts is told of the members."""
        return Role(target=True, other=self.asked_of, task=task)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


def changed(candidates: CandidateSet | None, before: Tensor, after: Tensor) -> Tensor:
    """The same where the candidates may be a batch's partners."""
    return before.argmax(-1) != after.argmax(-1) if candidates is None else candidates.changed(before, after)
