"""Which task a step trains: a pure function of seed and step, so ranks agree and a resume needs no state.

Unmixed sampling (Uni-Perceiver v2, 2211.09808 section 3.3): every rank draws the same task at a step.
Mixed sampling (the released v1 trainer): every rank draws its own task.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from generalist.data.base.errors import UserError

BLOCK = 64  # draws are stratified over blocks of this many steps: each block follows the shares closely


@dataclass
class Schedule:
    """Task draws by share. `shares` are normalised to sum 1; `mixed` lets ranks differ."""

    names: list[str]
    shares: list[float]
    seed: int = 0
    mixed: bool = False
    _blocks: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)
    _counts: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("a schedule needs at least one task")
        if len(set(self.names)) != len(self.names):
            raise UserError(f"two tasks share a name: {sorted(self.names)}")
        if any(not np.isfinite(s) or s <= 0 for s in self.shares):
            shares = dict(zip(self.names, self.shares, strict=True))
            raise UserError(f"every task's share must be positive and finite, got {shares}")
        total = float(sum(self.shares))
        self.shares = [s / total for s in self.shares]
        self._edges = np.cumsum(self.shares).tolist()

    def _block(self, block: int, rank: int) -> np.ndarray:
        stream = rank if self.mixed else 0
        if (block, stream) not in self._blocks:
            rng = np.random.Generator(np.random.Philox(key=[self.seed, stream], counter=[0, 0, 0, block]))
            u = (rng.permutation(BLOCK) + rng.random(BLOCK)) / BLOCK
            last = len(self.names) - 1
            self._blocks[block, stream] = np.array([min(bisect_right(self._edges, x), last) for x in u])
        return self._blocks[block, stream]

    def task_at(self, step: int, rank: int = 0) -> str:
        """The task of this step (0-based)."""
        return self.names[self._block(step // BLOCK, rank)[step % BLOCK]]

    def draws_before(self, step: int, task: str, rank: int = 0) -> int:
        """How often `task` was drawn in steps 0..step-1: its place in its own data, from nothing but the step."""
        block, k = step // BLOCK, self.names.index(task)
        stream = rank if self.mixed else 0
        if stream not in self._counts:
            self._counts[stream] = np.zeros((1, len(self.names)), dtype=np.int64)
        counts = self._counts[stream]
        if len(counts) <= block:
            new = [np.bincount(self._block(b, rank), minlength=len(self.names)) for b in range(len(counts) - 1, block)]
            counts = np.concatenate([counts, counts[-1] + np.cumsum(new, axis=0)])
            self._counts[stream] = counts
        within = self._block(block, rank)[: step % BLOCK]
        return int(counts[block, k] + np.count_nonzero(within == k))

    def share(self, task: str) -> float:
        return self.shares[self.names.index(task)]
