"""What a modality may be able to do besides reading; whoever needs it asks isinstance(modality, Writes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from generalist.data.batch.types import Span


@runtime_checkable
class Writes(Protocol):
    """Answers are written in it, word by word, over a vocabulary that stands among its texts."""

    vocabulary: Any
    eot: Any
    spe: Any
    max_length: int

    def next_span(self, ids: Sequence[int] | Tensor) -> Span: ...

    def caption_span(self, text: str, max_length: int | None = None) -> Span: ...

    def vocabulary_spans(self) -> list[Span]: ...

    def decode(self, ids: Sequence[int] | Tensor) -> str: ...

    def beginning(self) -> dict[str, Tensor]: ...


@runtime_checkable
class Adopts(Protocol):
    """Stands on a network that is found by a name or lies in a folder, and reads it once."""

    def adopt(self) -> None:
        """UserError for a network that is not there or that cannot work; of the recipe then, and of no sample."""
        ...


@runtime_checkable
class Tokenizes(Protocol):
    """Reads texts, and says which tokenizer a processor has beside it."""

    def hf_tokenizer(self) -> Any:
        """A tokenizer of transformers."""
        ...


@runtime_checkable
class Hears(Protocol):
    """It reads sounds: (waveform, Hz) is a raw value, which is brought to its own `rate`."""

    hears: bool
    rate: int


@runtime_checkable
class Proposes(Protocol):
    """It proposes regions of a picture, at these rows of a span, and learns them from objects."""

    @property
    def proposal_rows(self) -> Tensor: ...

    def object_span(self, value: Tensor, objects: Any, rng: torch.Generator | None = None) -> Span: ...


@runtime_checkable
class Learns(Protocol):
    """It learns something of its own from training rows before training: a schema, means, sizes."""

    def learn_rows(self, name: str, rows: list[Any]) -> None: ...


@runtime_checkable
class Compares(Protocol):
    """It tells what rows hold that those it learnt from did not."""

    def strange(self, name: str, rows: list[dict[str, Any]]) -> list[str]: ...


@runtime_checkable
class Mirrors(Protocol):
    """Its values can be mirrored."""

    def mirror(self, value: Tensor) -> Tensor: ...
