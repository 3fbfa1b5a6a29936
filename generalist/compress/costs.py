"""What an answer costs: multiply-adds and the peak of memory of one sample, milliseconds alone and in a batch."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from generalist.compress.questions import Question
from generalist.data.batch.types import Packed
from generalist.evaluate.answer import examples_of
from generalist.inspect.heads import weighing

SIZES = (1, 64)  # samples a pass whose time is taken
ROUNDS, MOST, SECONDS = 21, 400, 2.0  # at least and at most so many in turn, between them as many as take this long


class Alive(TorchDispatchMode):
    """Bytes of the tensors that are made inside and still held. peak: the most of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in given | self._known:
                storage = tensor.untyped_storage()
                self._known.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def inputs_of(question: Question, size: int) -> Packed:
    """So many samples of a question packed; again from the first where it has fewer."""
    task, numbers = question.task, range(min(len(question.records), size))
    examples = [e for i in numbers for e in examples_of(task, question.records, i, [None])]
    return task.collate(list(islice(cycle(examples), size))).inputs


@torch.no_grad()
def counted(model: Any, question: Question) -> dict[str, float]:
    """{"multiply_adds", "peak_bytes"} of one sample: inputs to features. Peak: what a pass of 64 holds at once besides
    weights and inputs, on average a sample."""
    several = inputs_of(question, max(SIZES)).to(model.device)
    with weighing(model), FlopCounterMode(display=False) as flops:  # attention written out: fused kernels hide theirs
        model.features(several)
    with Alive() as alive:
        model.features(several)
    size = max(SIZES)
    return {"multiply_adds": flops.get_total_flops() / 2 / size, "peak_bytes": alive.peak / size}


@torch.no_grad()
def milliseconds(models: Sequence[Any], question: Question) -> list[dict[str, float]]:
    """{"1": ms a sample, "64": ...} of each model: packed inputs to features, the fastest of rounds taken in turn, for
    whatever else a machine does only adds."""
    out = [dict[str, float]() for _ in models]
    for size in SIZES:
        inputs = inputs_of(question, size)
        taken: list[list[float]] = [[] for _ in models]
        start = time.perf_counter()
        for done in range(MOST + 1):
            if done > ROUNDS and time.perf_counter() - start > SECONDS * min(1, ROUNDS):
                break
            for model, times in zip(models, taken, strict=True):
                packed = inputs.to(model.device)
                began = time.perf_counter()
                model.features(packed).sum().item()  # the sum waits for the device
                times.append(time.perf_counter() - began)
        for found, times in zip(out, taken, strict=True):
            found[str(size)] = 1000 * min(times[1:]) / size  # the first warms up
    return out
