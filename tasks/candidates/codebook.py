"""A codebook of what tokens of a modality show: the candidate set of masked modelling beyond words and numbers.

Source: BEiT (2106.08254) and BEST-RQ (2202.01855) ask for the code of a hidden token instead of its values. Here a code
is a token itself - the mean of a k-means cluster of training tokens - and is encoded by the shared encoder as any other
candidate, so that the law needs no table of codes.

    tokens with equal categories (a table's column and category, a node's label) are of one kind;
    a kind that also holds numbers is split by k-means, kinds sharing the codes by how often they occur
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.base.named import named as by_name
from generalist.data.batch.types import IGNORE, Span
from generalist.tasks.candidates.names import CandidateSet
from generalist.tokenizers_mod.base.base import Modality

TOKENS = 20000  # training tokens that a codebook is learnt from


@dataclass
class Codes(CandidateSet):
    """K tokens of one modality: [summary, token]; labels are their numbers.

    categories, numbers: {key of the token's data: K rows}; both are what a token shows and of which kind it is.
    shapes: {key: shape of a row}, of all keys of the modality's data; kinds: {key: "int64" or "float32"}. hidden_kinds:
    the keys of `categories` that a hidden token still shows.
    """

    modality: str
    categories: dict[str, list[Any]] = field(default_factory=dict)
    numbers: dict[str, list[Any]] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    hidden_kinds: list[str] = field(default_factory=list)
    kind: ClassVar[str] = "codes"

    @property
    def members(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.modality,)

    @property
    def size(self) -> int:
        return len(next(iter({**self.categories, **self.numbers}.values())))

    def rows(self, key: str) -> Tensor:
        """The codes' own rows of a key of the data, zeros where the key is no part of them: [K, ...]."""
        kind, shape = by_name(f"torch:{self.kinds[key]}"), (self.size, *self.shapes[key])
        found = self.categories.get(key, self.numbers.get(key))
        return torch.zeros(shape, dtype=kind) if found is None else torch.tensor(found, dtype=kind).reshape(shape)

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        summary = modalities["summary"]
        rows = {key: self.rows(key) for key in self.kinds}
        return [
            [summary.span(None).ask([0]), Span(self.modality, {k: v[i : i + 1] for k, v in rows.items()}, 1)]
            for i in range(self.size)
        ]

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        return [f"{self.modality} code {i}" for i in range(self.size)]

    def kinds_of_codes(self) -> Tensor:
        """Which codes are alike in what a hidden token still tells, its integer kinds: Int[K]."""
        kept = [self.rows(key).reshape(self.size, -1) for key in self.hidden_kinds]
        if not kept:
            return torch.zeros(self.size, dtype=torch.long)
        return torch.cat(kept, dim=1).unique(dim=0, return_inverse=True)[1]

    def assign(self, data: dict[str, Tensor]) -> Tensor:
        """The code of every token: Int[n], the nearest of its kind, -1 where the codebook has none of it."""
        categories, numbers = self._flat()
        distance = torch.cdist(flat(data, self.numbers), numbers)
        own = flat(data, self.categories, torch.long)
        same = (own.unsqueeze(1) == categories).all(-1)
        distance = distance.masked_fill(~same, float("inf"))
        return torch.where(same.any(-1), distance.argmin(-1), IGNORE)

    def _flat(self) -> tuple[Tensor, Tensor]:
        """Categories Int[K, a] and numbers Float[K, b], laid out once."""
        if "_kept" not in self.__dict__:
            rows = {key: self.rows(key) for key in self.kinds}
            self._kept = (flat(rows, self.categories, torch.long), flat(rows, self.numbers))
        return self._kept


def flat(data: dict[str, Tensor], keys: Iterable[str], kind: torch.dtype = torch.float32) -> Tensor:
    """These keys side by side: [n, all their columns]; [n, 0] where there is none."""
    n = len(next(iter(data.values())))
    return torch.cat([torch.zeros(n, 0, dtype=kind), *(data[k].reshape(n, -1).to(kind) for k in keys)], dim=1)


def learn_codes(modality: Modality, spans: Iterable[Span], size: int, seed: int = 0) -> Codes:
    """At most `size` codes from training spans. UserError: a modality without content, tokens all alike."""
    content = modality.content()
    if not content:
        raise UserError(f"{modality.name}: its tokens cannot be hidden one by one; masked modelling is not for it")
    kept: dict[str, list[Tensor]] = {}
    for span in spans:
        rows = modality.hideable(span)
        for key, value in span.data.items():
            kept.setdefault(key, []).append(value[rows])
    data = {key: torch.cat(parts) for key, parts in kept.items()}
    count = len(next(iter(data.values()), ()))
    if count > TOKENS:
        chosen = torch.from_numpy(np.random.default_rng(seed).choice(count, TOKENS, replace=False)).sort().values
        data = {key: value[chosen] for key, value in data.items()}
    own = [*modality.kind_keys, *content]
    categories = [k for k in own if k in data and not data[k].is_floating_point()]
    numbers = [k for k in own if k in data and data[k].is_floating_point()]
    first, centres = _clusters(flat(data, categories, torch.long).numpy(), flat(data, numbers).numpy(), size, seed)
    if len(first) < 2:
        raise UserError(f"{modality.name}: all tokens of the training data are alike; there is nothing to restore")
    widths = [int(np.prod(data[k].shape[1:])) for k in numbers]
    columns = dict(zip(numbers, np.split(centres, np.cumsum(widths)[:-1], axis=1), strict=True)) if numbers else {}
    return Codes(
        modality.name,
        {k: data[k][first].reshape(len(first), -1).tolist() for k in categories},
        {k: [[float(f"{v:.5g}") for v in row] for row in columns[k]] for k in numbers},
        {k: list(v.shape[1:]) for k, v in data.items()},
        {k: str(v.dtype).removeprefix("torch.") for k, v in data.items()},
        [k for k in categories if k in modality.kind_keys],
    )


def _clusters(kinds: np.ndarray, numbers: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Int[n, a] and Float[n, b] -> a token of every code's kind Int[K], and the codes' numbers Float[K, b]."""
    from sklearn.cluster import KMeans

    _, first, which, count = np.unique(kinds, axis=0, return_index=True, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    commonest = np.argsort(-count, kind="stable")[:size]
    # one code each, the rest by how often a kind occurs
    spare = size - len(commonest)
    share = 1 + np.floor(spare * count[commonest] / count[commonest].sum()).astype(int)
    found, centres = [], []
    for kind, codes in zip(commonest, share, strict=True):
        own = numbers[which == kind]
        distinct = len(np.unique(own, axis=0)) if codes > 1 else 1
        if min(codes, distinct) == 1:
            middle = own.mean(0, keepdims=True)
        else:
            middle = KMeans(min(codes, distinct), n_init=1, max_iter=30, random_state=seed).fit(own).cluster_centers_
        found += [first[kind]] * len(middle)
        centres.append(middle)
    return np.array(found), np.concatenate(centres)
