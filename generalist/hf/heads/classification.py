"""`AutoModelForImageClassification` and its kin: the classes are candidates, named by config.id2label.

    logits[i] = cos(f(x), f(name i)) * scale        several may be right: minus that of "not name i"

Fine-tuning trains the one encoder on both sides, as training does; no weight is added that a folder could lack. Names
that are set after loading count from then on.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Role
from generalist.hf.heads.base import Head
from generalist.tasks.candidates.names import CandidateSet, Names
from generalist.tasks.kinds.multilabel import Marks

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
WANTED = 'give id2label={0: "a name", 1: "another name"}'


class Classifier(Head):
    """Padded tensors of one modality -> logits Float[B K] of the K classes, and the loss where labels are given."""

    among = ("names", "marks")
    output: ClassVar[type[SequenceClassifierOutput] | type[ImageClassifierOutput]] = SequenceClassifierOutput

    @property
    def open(self) -> bool:
        return self.config.id2label is None

    def take(self, task: str, candidates: CandidateSet) -> None:
        """Its classes too."""
        super().take(task, candidates)
        config = self.config
        config.problem_type = MULTI if candidates.several else SINGLE
        config.id2label = dict(enumerate(candidates.choices()))
        config.label2id = {name: i for i, name in config.id2label.items()}

    @property
    def classes(self) -> Names | Marks:
        """The candidates of the head. UserError where there are none, or fewer than a choice needs."""
        names, several = self.config.id2label, self.config.problem_type == MULTI
        if names is None:
            raise UserError(f"no task of this model has such classes; {WANTED}")
        if self.config.problem_type == "regression" or (len(names) == 1 and not several):
            raise UserError(f"a head of classes ranks names and tells no number (num_labels={len(names)}); {WANTED}")
        if any(isinstance(i, str) for i in names):  # as stock scripts say them; a file's configuration has ints
            names = self.config.id2label = {int(i): name for i, name in names.items()}
        if sorted(names) != list(range(len(names))):
            raise UserError(f"id2label numbers its classes {sorted(names)[:4]}...; count them from 0 without a gap")
        ordered = [str(names[i]) for i in range(len(names))]
        return Marks(ordered) if several else Names(ordered)

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **tensors: Any,
    ) -> SequenceClassifierOutput | ImageClassifierOutput:
        """labels: Int[B] numbers of classes, or Float[B K] of 0 and 1 where several may be right."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "pixel_values": pixel_values,
            "pixel_mask": pixel_mask,
            "input_features": input_features,
            "input_features_mask": input_features_mask,
            **tensors,
        }
        name, mine = self.one_modality(given)
        if labels is not None and self.config.problem_type is None:  # by what they are, as transformers' own heads
            self.config.problem_type = MULTI if labels.is_floating_point() else SINGLE
        classes = self.classes
        asked, answer = self.sides.roles({name}, classes.members, self.config.head_task or None)
        out = self.encode_padded(name, mine, False, output_hidden_states, output_attentions, asked)
        features = self.class_features(classes, answer)
        logits = classes.against(self.logits(out.pooler_output, features, self.head_scale(name, classes.members)))
        loss = None if labels is None else class_loss(logits, labels.to(logits.device), classes)
        return self.output(loss=loss, logits=logits, hidden_states=out.hidden_states, attentions=out.attentions)

    def class_features(self, classes: Names | Marks, role: Role) -> Tensor:
        """f of the candidates Float[K D]: with gradient in training, else kept while the weights stay."""

        def made() -> Tensor:
            return self.encode_answers(classes.sequences(self.modalities), role)

        found = self.repeated((classes.kind, *classes.names), None, role, made)
        return made() if found is None else found


def class_loss(logits: Tensor, labels: Tensor, classes: Names | Marks) -> Tensor:
    """The mean negative log-likelihood of the labels. UserError for labels that are none of the classes."""
    if classes.several:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    if labels.is_floating_point():
        raise UserError(f"labels are numbers of classes here; problem_type={MULTI!r} takes a 0 or 1 for each class")
    if not -1 < int(labels.min()) <= int(labels.max()) < len(classes.names):
        raise UserError(f"labels go from {labels.min()} to {labels.max()}, classes from 0 to {len(classes.names) - 1}")
    return F.cross_entropy(logits, labels.flatten())


class GeneralistForImageClassification(Classifier):
    """pixel_values Float[B C H W] -> logits Float[B K]."""

    main_input_name = "pixel_values"
    output = ImageClassifierOutput


class GeneralistForAudioClassification(Classifier):
    """input_features Float[B frames mels] -> logits Float[B K]."""

    main_input_name = "input_features"


class GeneralistForSequenceClassification(Classifier):
    """input_ids Int[B n] -> logits Float[B K]."""

    main_input_name = "input_ids"
