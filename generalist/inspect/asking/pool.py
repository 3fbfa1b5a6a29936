"""What the tokens of all records at hand show: what may stand in the place of one of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.outliers import inside
from generalist.inspect.asking.disturb import contents, measured
from generalist.inspect.asking.look import Look

At = tuple[str, str]  # a modality, and the key of what its tokens show
Kind = tuple[int, ...]  # of a token, such as its column; () where there are no kinds


class Pool:
    """Of every content of the inputs its values, and of which kind each is; what is asked of a kind is made once."""

    def __init__(self, looked: Iterable[Look]) -> None:
        values: dict[At, list[Tensor]] = {}
        kinds: dict[At, list[Tensor]] = {}
        for look in looked:
            for name, blank in contents(look).items():
                modality, data = look.task.modalities[name], look.packed.data[name]
                keys = [key for key in modality.kind_keys if key not in blank]
                for key in blank:
                    values.setdefault((name, key), []).append(measured(modality, data[key]).detach().cpu())
                    own = torch.stack([data[k].cpu() for k in keys], 1) if keys else torch.zeros(len(data[key]), 0)
                    kinds.setdefault((name, key), []).append(own.long())
        self._values = {at: torch.cat(own) for at, own in values.items()}
        self._kinds = {at: torch.cat(own) for at, own in kinds.items()}
        self._ranges: dict[tuple[At, Kind], tuple[float, float, float]] = {}
        self._ids: dict[tuple[At, Kind], tuple[Tensor, Tensor]] = {}

    def _like(self, at: At, kind: Kind) -> Tensor:
        return self._values[at][(self._kinds[at] == torch.tensor(kind, dtype=torch.long)).all(1)]

    def range_of(self, at: At, kind: Kind) -> tuple[float, float, float]:
        """The lowest and the highest number, and the range of those that do not lie far from the others."""
        if (at, kind) not in self._ranges:
            own = self._like(at, kind).double().flatten().numpy()
            usual = own[inside(own)]
            self._ranges[at, kind] = float(own.min()), float(own.max()), float(np.ptp(usual))
        return self._ranges[at, kind]

    def ids_of(self, at: At, kind: Kind) -> tuple[Tensor, Tensor]:
        """The ids, and how often each occurs: Int[k], Float[k]."""
        if (at, kind) not in self._ids:
            ids, often = self._like(at, kind).unique(return_counts=True)
            self._ids[at, kind] = ids, often.float()
        return self._ids[at, kind]
