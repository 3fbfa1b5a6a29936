"""What a tokenizer's device half finds besides tokens, for the rows that it put out.

A region proposer knows boxes, masks and a loss of its own, and only its matching tells which class a proposal should
be given. It leaves them in `module.aside` at every forward pass; the model hands them to whoever asks, by asked token.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Aside:
    """R output rows of one forward pass of a tokenizer.

    rows: {name: [R, ...]}, such as boxes. labels: Int[R], the label of each row that the tokenizer itself assigned
    (a set of objects matched to proposals), or None. loss: [1], the tokenizer's own loss summed over answers, so that
    it merges with the sum of -log p, or None.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None
    loss: Tensor | None = None

    def take(self, index: Tensor) -> Aside:
        """The same for the rows `index` Int[M]."""
        labels = None if self.labels is None else self.labels[index]
        return Aside({name: value[index] for name, value in self.rows.items()}, labels, self.loss)
