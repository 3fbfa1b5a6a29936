"""Parameters stepped end to end: one gradient and two moments for all of them, or for the rows of a table in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")
TABLE = 2**20  # numbers from which it pays to look which rows of a table were ever used

State = dict[str, Any]


@dataclass
class Run:
    """What one call steps: gradient and moments end to end, Float32[n], and whose they are.

    rows: Int[r], those of the one table that it is about; None: all of the parameters.
    """

    gradient: Tensor
    moments: list[Tensor]
    parameters: list[Tensor]
    states: list[State]
    rows: Tensor | None = None

    def move(self, moves: Tensor, decay: float) -> None:
        """Parameters times `decay`, then their part of `moves`, Float32[n]; a table's moments are put back."""
        if self.rows is not None:
            table, state = self.parameters[0], self.states[0]
            table.index_add_(0, self.rows, moves.view(-1, table.shape[1]).to(table.dtype))
            for key, moment in zip(MOMENTS, self.moments, strict=True):
                state[key].index_copy_(0, self.rows, moment.view(-1, table.shape[1]))
            return
        if decay != 1:
            torch._foreach_mul_(self.parameters, decay)
        parts = _unflatten_dense_tensors(moves, self.parameters)
        kinds = {p.dtype for p in self.parameters}
        if kinds != {moves.dtype}:
            parts = [own.to(p.dtype) for own, p in zip(parts, self.parameters, strict=True)]
        torch._foreach_add_(self.parameters, parts)


class Flat:
    """Lays an optimiser's parameters and their states end to end, and knows which rows of large tables are in use.

    A row that no gradient has ever reached has moments of zero: a step without weight decay leaves it as it is, so
    leaving it out gives the same bits. One that was reached is stepped from then on, whether a step touches it or not.
    """

    def __init__(self) -> None:
        self.used: dict[Tensor, tuple[Tensor, Tensor]] = {}  # of each table: its first moment, Bool[rows] in use
        self.dense: set[Tensor] = set()  # tables of which most rows are in use

    def runs(self, parameters: Sequence[Tensor], states: Sequence[State], decays: bool) -> list[Run]:
        """The parameters of a group, all with gradients and fresh or loaded states, in as few runs as may be."""
        found: list[Run] = []
        alike: dict[tuple[int, torch.device], list[int]] = {}
        for i, (p, state) in enumerate(zip(parameters, states, strict=True)):
            run = None if decays or not self._table(p) else self._rows(p, state)
            if run is None:
                alike.setdefault((int(state["step"]), p.device), []).append(i)
            else:
                found.append(run)
        for numbers in alike.values():
            own, of = [parameters[i] for i in numbers], [states[i] for i in numbers]
            gradient = joined([p.grad for p in own if p.grad is not None]).float()
            found.append(Run(gradient, [end_to_end(of, key) for key in MOMENTS], own, of))
        return found

    def _table(self, p: Tensor) -> bool:
        return p.ndim == 2 and p.numel() >= TABLE and p.device.type == "cpu" and p not in self.dense

    def _rows(self, table: Tensor, state: State) -> Run | None:
        """The rows in use, None where they are most of them."""
        assert table.grad is not None
        first = state[MOMENTS[0]]
        before, used = self.used.get(table, (None, None))
        if used is None or before is not first:  # a state that was loaded says so itself
            used = (first != 0).any(1) | (state[MOMENTS[1]] != 0).any(1)
        used = used | (torch.linalg.vector_norm(table.grad, torch.inf, dim=1) != 0)
        self.used[table] = first, used
        rows = used.nonzero().squeeze(1)
        if 2 * len(rows) > len(table):
            self.dense.add(table)
            del self.used[table]
            return None
        moments = [state[key].index_select(0, rows).flatten() for key in MOMENTS]
        return Run(table.grad.index_select(0, rows).flatten().float(), moments, [table], [state], rows)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Their numbers end to end; without a copy where it is one."""
    return tensors[0].reshape(-1) if len(tensors) == 1 else _flatten_dense_tensors(tensors)


def end_to_end(states: Sequence[State], key: str) -> Tensor:
    """A moment of several parameters as one tensor, of which their states hold the parts from now on."""
    own = [state[key] for state in states]
    if len(own) == 1 and own[0].is_contiguous():
        return own[0].view(-1)
    first, total = own[0], sum(t.numel() for t in own)
    room = first.untyped_storage().nbytes() // first.element_size() - first.storage_offset()
    ends = [t.data_ptr() + t.numel() * first.element_size() for t in own]
    if room >= total and [t.data_ptr() for t in own[1:]] == ends[:-1] and all(t.is_contiguous() for t in own):
        return first.as_strided((total,), (1,))
    flat = joined(own)
    for state, t, part in zip(states, own, flat.split([t.numel() for t in own]), strict=True):
        state[key] = part.view(t.shape)
    return flat
