"""The demo's training step over the same step without what saves it time: the last layer for all tokens, an optimiser
that goes parameter by parameter.

Both are the same model, batches and numbers, in one process and in turn; no earlier commit is needed
(`generalist.scripts.bench_step` compares two).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from torch import Tensor

from generalist.data.batch.at import At
from generalist.data.batch.types import Batch
from generalist.nn.encoder import Encoder
from generalist.scripts.bench_training import batches, demo, line, through
from generalist.scripts.timing import alternate
from generalist.train.engines.flat import Flat, Run, State

TARGET = "<= .90"
AGAINST = {"plain": "without both", "whole": "the last layer for all tokens", "single": "parameter by parameter"}


def measure(rounds: int, tasks: list[str] | None = None) -> list[dict[str, Any]]:
    """A round is one batch of every task of the demo through the local engine."""
    recipe, prepared = demo(tasks)
    own = [found[0] for found in batches(recipe, prepared, 1).values()]
    steps = {name: through(recipe, prepared, "local") for name in ("saving", "plain", "whole", "single")}
    calls = {
        "saving": partial(_round, steps["saving"], own),
        "whole": partial(_in, whole_layers, steps["whole"], own),
        "single": partial(_in, one_by_one, steps["single"], own),
        "plain": partial(_in, neither, steps["plain"], own),
    }
    found = []
    for base, against in AGAINST.items():
        pair = {name: calls[name] for name in ("saving", base)}
        target = TARGET if base == "plain" else "measured"
        found.append(line("the demo's step, all tasks", against, alternate(pair, base, rounds), "saving", target))
    return found


def _round(step: Callable[[Batch], None], own: Sequence[Batch]) -> None:
    for batch in own:
        step(batch)


def _in(way: Callable[[], Any], step: Callable[[Batch], None], own: Sequence[Batch]) -> None:
    with way():
        _round(step, own)


@contextmanager
def whole_layers() -> Iterator[None]:
    """Inside, every layer makes all tokens; those asked are taken of what comes out."""
    forward = Encoder.forward

    def run(self: Encoder, x: Tensor, at: At) -> tuple[Tensor, At]:
        return forward(self, x, replace(at, only=False))

    with mock.patch.object(Encoder, "forward", run):
        yield


@contextmanager
def one_by_one() -> Iterator[None]:
    """Inside, an optimiser steps every parameter by itself."""
    runs = Flat.runs

    def single(self: Flat, parameters: Sequence[Tensor], states: Sequence[State], decays: bool) -> list[Run]:
        # as if every parameter decayed: no table is looked through for its rows in use
        return [run for p, s in zip(parameters, states, strict=True) for run in runs(self, [p], [s], True)]

    with mock.patch.object(Flat, "runs", single):
        yield


@contextmanager
def neither() -> Iterator[None]:
    with whole_layers(), one_by_one():
        yield
