"""Values of tokens as a report draws them: over the input in its own form, span by span."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from generalist.data.stream.source import Record
from generalist.inspect.asking.look import Look
from generalist.inspect.drawn import small

WORDS = 400  # tokens in words that are kept of a span


def heats(look: Look, number: int, record: Record, values: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Of each span of a record's inputs [{"modality", "input", "shape", "words", "values": {name: a number or None for
    every cell}}].

    number: which of the look's records; values: {name: Float[N]}. shape: of the grid, [] of a set; words: [] where
    tokens are places of a grid.
    """
    out = []
    pieces = [own for own in look.spans() if own[0].sequence == number]
    of = [span for span in look.sequences[number] if span.modality in look.task.inputs]
    for (piece, modality), span in zip(pieces, [span for span in of if _real(span)], strict=True):
        cells = list(range(piece.length)) if piece.cells is None else piece.cells.tolist()
        laid: dict[str, list[float | None]] = {}
        for name, value in values.items():  # NaN where a token was not tried
            laid[name] = [None] * span.length
            for cell, one in zip(cells, value[piece.start : piece.start + piece.length].tolist(), strict=True):
                laid[name][cell] = float(f"{one:.4g}") if one == one else None
        words = modality.tokens_in_words(span)
        if words:
            laid = {name: own[:WORDS] for name, own in laid.items()}
        shown = small(modality.seen(record[look.task.inputs[span.modality]]))
        out.append(
            {
                "modality": span.modality,
                "input": shown,
                "shape": list(span.grid or ()),
                "words": words[:WORDS],
                "values": laid,
            }
        )
    return out


def _real(span: Any) -> bool:
    return bool(span.length) and (span.mask is None or bool(span.mask.any()))
