"""The modality that is checked: fresh ones of its example settings, their values, spans and features."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.commands.check.lines import Fault
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples, raw_at


class Subject:
    """A modality under test with its examples, and a model of two layers that reads nothing else."""

    def __init__(self, kind: type[Modality]) -> None:
        self.kind, self.name = kind, kind.name
        self.examples = Examples(*kind.examples())
        if not self.examples.good:
            raise Fault(f"{kind.__name__}.examples() gives no good raw value; return (settings, good, bad)")
        self.settings = {"class": f"{kind.__module__}:{kind.__qualname__}", **self.examples.settings}
        torch.manual_seed(0)
        self.model = GeneralistModel(
            GeneralistConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=48,
                modalities={"summary": {}, self.name: self.settings},
            )
        ).eval()
        self.modality = self.model.modalities[self.name]

    def values(self) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            return [self.modality.read(raw_at(raw, Path(folder))) for raw in self.examples.good]

    def spans(self) -> list[Span]:
        return [unasked(self.modality.span(value)) for value in self.values()]

    def sequence(self, span: Span) -> list[Span]:
        return [self.model.modalities["summary"].span(None).ask([0]), span]

    @torch.no_grad()
    def features(self, spans: Sequence[Span]) -> Tensor:
        """f of each span, read at the summary in front of it: Float[B D]."""
        return self.model.features(pack([self.sequence(span) for span in spans]))


def unasked(span: Span) -> Span:
    """The span as part of an input: where it asks by itself, elsewhere does the asking."""
    return replace(span, asked=None, labels=None)


def real(span: Span) -> Tensor:
    return torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask
