"""The summary token: one learned row in front of a sequence, read as the representation of the whole.

Source: Uni-Perceiver's SPE (2112.01522, section 3): Tok[SPE] with no position and no type, then the shared norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.constants import constant
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.text.text import text_span
from generalist.tokenizers_mod.text.text_tokens import NO_POSITION


@dataclass
class Summary(Modality):
    """One learned token.

    as_text: the id of SPE in the text table (`Text.spe`), or None. With an id the span is a *text* span, so that
        the row is shared with the SPE copies inside texts, as in Uni-Perceiver; this modality then has no weights.
    hidden: it sees the others and none sees it, as beside encoders that were trained without such a token.

    >>> Summary().span().length
    1
    """

    name = "summary"
    axes = 1
    raw = "nothing (None)"
    takes_input = False
    count = "1"

    as_text: int | None = None
    hidden: bool = False

    def span(self, value: Any = None, rng: torch.Generator | None = None) -> Span:
        """One token; `value` and `rng` are not used."""
        return _token(self.name, self.as_text, self.hidden)

    def question(self, labels: Tensor | None = None) -> Span:
        """The summary with the question asked at it; labels: [1, ...], or None at inference."""
        return self.span().ask([0], labels)

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.text.examples import summary

        return summary()

    def build(self, width: int) -> nn.Module:
        """forward({'row': Int[N]}) -> Float[N, width]; without weights when the row is the text table's."""
        return SummaryToken(width) if self.as_text is None else nn.Identity()


@constant(64)
def _token(name: str, as_text: int | None, hidden: bool) -> Span:
    """The one span of a kind of summary: every sample starts with it."""
    flag = torch.ones(1, dtype=torch.bool) if hidden else None
    if as_text is not None:
        span = text_span(torch.tensor([as_text]), position=torch.tensor([NO_POSITION]))
        return replace(span, hidden=flag, grid=None)  # one token is no line
    return Span(name, {"row": torch.zeros(1, dtype=torch.long)}, 1, hidden=flag)


class SummaryToken(Tokenizer):
    """The learned row [1, width], N(0, 0.2), repeated N times: quieter than the words and patches it will sum up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(1, width)
        nn.init.normal_(self.token.weight, std=0.2)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return self.token(data["row"])
