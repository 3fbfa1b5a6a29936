"""What concepts are good for: which answers go wrong, what an answer becomes when a concept is added or taken away."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.inspect.asking.look import Look
from generalist.inspect.concepts.sae import SparseAutoencoder, normalised

FOLDS, COMPONENTS = 5, 4
FEW = 5  # wrong answers, and right ones, that a prediction needs


class Steer:
    """A tap behind a layer: concepts added to every token of the input and its question, or taken away.

    add: {concept: how much}, in units of the normalised tokens; without: concepts whose part is taken out.
    """

    def __init__(
        self, name: str, sae: SparseAutoencoder, add: dict[int, float], without: list[int] | None = None
    ) -> None:
        self.name, self.sae, self.add, self.without = name, sae, add, list(without or ())

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name != self.name:
            return x
        moved = torch.zeros_like(x)
        for concept, much in self.add.items():
            moved = moved + much * self.sae.W_dec[concept]
        if self.without:
            f = self.sae.encode(normalised(x.float()))[:, self.without]
            moved = moved - f @ self.sae.W_dec[self.without]
        return x + (moved * x.std(-1, correction=0, keepdim=True)).to(x.dtype)


@torch.no_grad()
def steered(look: Look, steer: Steer) -> Tensor:
    """log p of every candidate with a layer's tokens steered."""
    with look.model.tapped(steer):
        return look.log_p()


def predicted(concepts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What partial least squares says of the target of each record from its concepts Float[n F], by those in other
    folds."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.model_selection import KFold, StratifiedKFold

    two = len(np.unique(target)) == 2
    folds = (StratifiedKFold if two else KFold)(FOLDS, shuffle=True, random_state=0)
    out = np.zeros(len(target))
    for known, asked in folds.split(concepts, target):
        model = PLSRegression(min(COMPONENTS, concepts.shape[1], len(known) - 1), scale=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="y residual is constant")
            model.fit(concepts[known], target[known])
        out[asked] = model.predict(concepts[asked]).reshape(-1)
    return out


def weighted(concepts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How much each concept says of the target: its coefficient times how much it varies."""
    from sklearn.cross_decomposition import PLSRegression

    model = PLSRegression(min(COMPONENTS, concepts.shape[1], len(target) - 1), scale=False).fit(concepts, target)
    found: np.ndarray = model.coef_.reshape(-1) * concepts.std(0)
    return found


def goodness(target: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """AUC of a yes or no, correlation of a number."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(target)) == 2:
        return {"AUC": float(roc_auc_score(target, said))}
    spread = said.std() * target.std()
    return {"r": float(((said - said.mean()) * (target - target.mean())).mean() / spread) if spread else 0.0}


def few(target: np.ndarray) -> bool:
    """Whether there is too little of one kind to learn from."""
    return len(np.unique(target)) == 2 and min((target == v).sum() for v in np.unique(target)) < FEW
