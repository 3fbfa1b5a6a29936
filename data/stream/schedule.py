"""Which task a step trains: a pure function of seed and step, so ranks agree and a resume needs no state.

Unmixed sampling (Uni-Perceiver v2, 2211.09808 section 3.3): every rank draws the same task at a step.
Mixed sampling (the released v1 trainer): every rank draws its own task.
A task that is finished at a step leaves its share from there on to the others, in proportion to theirs.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from generalist.data.base.errors import UserError

BLOCK = 64  # draws are stratified over blocks of this many steps: each block follows the shares closely


@dataclass
class Schedule:
    """Task draws by share. `shares` are normalised to sum 1; `mixed` lets ranks differ.

    finished: {task: the first step that does not draw it any more}; at least one task goes on.
    """

    names: list[str]
    shares: list[float]
    seed: int = 0
    mixed: bool = False
    finished: dict[str, int] = field(default_factory=dict)
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
        if set(self.names) <= set(self.finished):
            raise UserError("every task is finished: no step is left to draw")
        # spans of steps with the same tasks, each from its first step on
        starts = sorted({0, *(step for name, step in self.finished.items() if name in self.names)})
        self._spans = [(start, self._left(start)) for start in starts]

    def _left(self, step: int) -> list[float]:
        """The shares at a step: zero for tasks that are finished."""
        gone = [self.finished.get(name, step + 1) <= step for name in self.names]
        if not any(gone):
            return self.shares
        left = [0.0 if off else share for off, share in zip(gone, self.shares, strict=True)]
        return [share / sum(left) for share in left]

    def _shares_at(self, step: int) -> list[float]:
        return next(shares for start, shares in reversed(self._spans) if start <= step)

    def _block(self, block: int, rank: int) -> np.ndarray:
        stream = rank if self.mixed else 0
        if (block, stream) not in self._blocks:
            rng = np.random.Generator(np.random.Philox(key=[self.seed, stream], counter=[0, 0, 0, block]))
            u = (rng.permutation(BLOCK) + rng.random(BLOCK)) / BLOCK
            drawn = np.empty(BLOCK, dtype=np.int64)
            for start, shares in self._spans:  # a later span has the last word from its first step on
                at = max(0, start - block * BLOCK)
                if at < BLOCK:
                    drawn[at:] = _drawn(u[at:], shares)
            self._blocks[block, stream] = drawn
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

    def share(self, task: str, step: int = 0) -> float:
        """A task's share of the draws at a step."""
        return self._shares_at(step)[self.names.index(task)]


def _drawn(u: np.ndarray, shares: list[float]) -> np.ndarray:
    """The task of each number in [0, 1), by the edges between the shares; one of share zero is never drawn."""
    edges = np.cumsum(shares).tolist()
    last = max(i for i, share in enumerate(shares) if share > 0)
    return np.array([min(bisect_right(edges, x), last) for x in u])
