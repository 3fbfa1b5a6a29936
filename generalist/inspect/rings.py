"""Where attention goes from a cell of a map or a token of a line: to itself, to the ring at each distance, elsewhere.

Ring k holds the cells at Chebyshev distance k, on a line the tokens k steps away; elsewhere are other spans, such as
the question, and prompts. A query's shares sum to one. pattern: what most of a head's attention is, of "itself",
"neighbours" (rings 0 and 1), "row", "column", "elsewhere"; else "even" where no key is preferred, or "content".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.inspect.distances import KINDS, Looks, places

RINGS = 6  # the last is that distance and all beyond
MOST = 0.5  # of the attention, for a pattern to be named after it
EVEN = 0.9  # of the largest entropy


class Rings(Looks):
    """A tap that sums shares by head, on maps and on lines."""

    def _look(self, name: str, weights: Tensor, at: At) -> None:
        """weights: Float[count H n P + n] of the pass's next group."""
        group = at.groups[self._part[name]]
        self._part[name] += 1
        table = at.once("places", lambda: places(at))
        own = table[group.start : group.start + group.count * group.length].view(group.count, group.length, 4)
        same = (own[:, :, None, 0] == own[:, None, :, 0]) & (own[:, :, None, 0] >= 0)
        step = (own[:, :, None, 1:3] - own[:, None, :, 1:3]).abs()
        ring = step.amax(-1).clamp(max=RINGS)
        weights = weights[..., -group.length :].detach().cpu().double()
        entropy = torch.special.entr(weights).sum(-1) / torch.log(torch.tensor(max(2.0, float(group.length))))
        for kind in KINDS:
            asked = (own[:, :, 0] >= 0) & ((own[:, :, 3] > 1) == (kind == "map"))
            if not bool(asked.any()):
                continue
            masks = [same & (ring == k) for k in range(RINGS + 1)] + [same & (step[..., axis] == 0) for axis in (0, 1)]
            parts = [(weights * mask[:, None]).sum(-1) for mask in masks]
            found = torch.stack([*parts, entropy], -1) * asked[:, None, :, None]
            self._sums[name, kind] = self._sums.get((name, kind), 0) + found.sum((0, 2))
            self._counts[name, kind] += int(asked.sum())

    def shares(self, name: str, head: int) -> dict[str, Any]:
        """{"rings": {kind: shares of rings 0 .. RINGS, then elsewhere}, "pattern": {kind: its name}}."""
        rings: dict[str, list[float]] = {}
        pattern: dict[str, str] = {}
        for kind in KINDS:
            if not self._counts[name, kind]:
                continue
            *own, row, column, entropy = (self._sums[name, kind][head] / self._counts[name, kind]).tolist()
            rings[kind] = [*own, max(0.0, 1 - sum(own))]
            named = {"itself": own[0], "neighbours": own[0] + own[1], "elsewhere": rings[kind][-1]}
            named |= {"row": row, "column": column} if kind == "map" else {}
            most = max(named, key=named.__getitem__)  # of equal ones the narrowest
            pattern[kind] = most if named[most] > MOST else "even" if entropy > EVEN else "content"
        return {"rings": rings, "pattern": pattern}
