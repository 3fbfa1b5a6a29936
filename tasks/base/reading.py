"""How an answer is read off a task's likelihood: kept lines, measures, words, what a report shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.stream.source import Record, Records
from generalist.tasks.candidates.answers import Answer
from generalist.tasks.candidates.names import CandidateSet, Numbers
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean
from generalist.tokenizers_mod.base.base import Modality

C = TypeVar("C", bound=CandidateSet)


class Reading:
    """What a task is besides its question: all that whoever measures, keeps and shows answers asks of it.

    `Task` adds the question. Answers (`generalist.evaluate.answer`) know no more than this.
    """

    kind: ClassVar[str] = ""
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    line_kind: ClassVar[str] = "named"  # the kind of line that is kept of an answer (`tasks.measures.lines`)
    symmetric: ClassVar[bool] = False  # asked the other way round too
    writes: ClassVar[bool] = False  # the answer is written word by word, not chosen
    also_called: ClassVar[dict[str, str]] = {}  # {a measure's own name here: that of the lines' measures}

    name: str
    scale: str  # the name of its logit scale
    inputs: dict[str, str]
    modalities: dict[str, Modality]
    candidates: CandidateSet | None

    @property
    def numbered(self) -> Numbers | None:
        """Its candidates where they are numbers whose intervals can be widened."""
        return None

    def by_step(self, values: Tensor, windows: int) -> Tensor:
        """Values of answers that are numbers, [M ...] -> a row a window, with its steps ahead: [n h ...]."""
        raise NotImplementedError(f"a {self.kind} tells no numbers")

    def among_kind(self, kind: type[C]) -> C:
        """Its candidates, which are of this kind once it is bound."""
        assert isinstance(self.candidates, kind)
        return self.candidates

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        """log_p Float[M ... K] and labels [M ...] -> metrics that merge over batches.

        Evaluation measures what is kept of the answers (`keep`); it takes from here what the lines do not say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define score")

    def measure(
        self, records: Records, log_p: Callable[[Tensor], Tensor], owner: Tensor, rows: dict[str, Tensor]
    ) -> dict[str, float]:
        """Metrics of a whole split that follow neither from the kept lines nor as means over answers.

        log_p: Int[m] -> Float[m K] of those asked tokens; owner: Int[M], the record of each; rows: {name: [M ...]},
        what the asked tokens' tokenizer found besides tokens.
        """
        return {}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        """What is saved of the answers of some records, from which every measure can be had again."""
        return {"record": kept.owner.numpy(), **lines.named(kept.log_p, kept.labels)}

    def read(self, record: Record, log_p: Tensor, rows: Mapping[str, Tensor]) -> Answer:
        """What is said of a record. log_p: Float[m ... K] of its asked tokens; rows: what their tokenizer found."""
        assert self.candidates is not None
        return self.candidates.read_off(log_p[0], self.modalities)

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        """The likeliest candidates of one sample in words, with their probabilities. log_p: Float[K], K names."""
        values, index = log_p.exp().topk(min(top, len(names)))
        return [(names[i], float(p)) for p, i in zip(values.tolist(), index.tolist(), strict=True)]

    def show(self, record: Record, log_p: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
        """A prediction for the report: the input as shown, the truth, the likeliest answers.

        log_p: Float[m ... K] and labels [m ...] of the record's own asked tokens; names: the K candidates.
        """
        modality, name = next(iter(self.inputs.items()))
        answers = self.answer(log_p[0], names)
        return {
            "input": self.modalities[modality].show(record[name]),
            "truth": self.truth(record),
            "answers": [[a, p] for a, p in answers],
            "correct": self.correct(log_p[0], labels[0]),
        }

    def correct(self, log_p: Tensor, label: Tensor) -> bool | None:
        """Whether the likeliest candidate is the label; None where answers are not right or wrong."""
        return bool(log_p.argmax(-1) == label) if log_p.ndim == 1 and not label.is_floating_point() else None

    def truths(self, record: Record) -> list[str]:
        """Every right answer in words, where a record has several partners."""
        return [self.truth(record)]

    def truth(self, record: Record) -> str:
        """The right answer in words, for reports."""
        return ""
