"""Which experts serve what: statistics of a model's routers over the batches that pass while they are recorded.

with ExpertUsage(model) as usage:
    model.features(packed)
print(usage.table())
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from generalist.nn.experts.experts import Experts, PerToken, Rows


class ExpertUsage:
    """Tokens that every expert served and the gate weight it gave them, by the name of the mixer.

    tokens: {mixer: Float[E]}, a token counts once for each of its k experts; weight: {mixer: Float[E]}, sums to the
    number of tokens. rows: {mixer: {row of the routes' table: experts}} for routers that choose by row.
    """

    def __init__(self, model: nn.Module) -> None:
        self.mixers = {name: m for name, m in model.named_modules() if isinstance(m, Experts)}
        self.tokens: dict[str, Tensor] = {}
        self.weight: dict[str, Tensor] = {}
        self.rows: dict[str, dict[tuple[int, ...], tuple[int, ...]]] = {}

    def __enter__(self) -> ExpertUsage:
        for name, mixer in self.mixers.items():
            mixer.recorder = partial(self._record, name, mixer)
        return self

    def __exit__(self, *_: object) -> None:
        for mixer in self.mixers.values():
            mixer.recorder = None

    @torch.no_grad()
    def _record(self, name: str, mixer: Experts, decision: Rows | PerToken) -> None:
        tokens, weight = decision.served(mixer.router.gate.out_features)
        self.tokens[name] = self.tokens.get(name, 0) + tokens
        self.weight[name] = self.weight.get(name, 0) + weight
        if isinstance(decision, Rows):
            own = self.rows.setdefault(name, {})
            pairs = zip(decision.routes.table.tolist(), decision.choice.experts.tolist(), strict=True)
            own.update({tuple(row): tuple(experts) for row, experts in pairs})

    def share(self, name: str) -> Tensor:
        """The share of all gate weight that each expert holds: Float[E], sums to one."""
        return self.weight[name] / self.weight[name].sum()

    def effective(self, name: str) -> float:
        """How many experts are in use: exp of the entropy of the shares, 1..E."""
        share = self.share(name)
        return float(torch.special.entr(share).sum().exp())

    def table(self) -> str:
        """One line a mixer: experts in use and the share of each, in per cent."""
        if not self.weight:
            return "no layer with experts has run"
        width = max(map(len, self.weight))
        lines = [f"{'layer':{width}}  in use  share of each expert, %"]
        for name in self.weight:
            shares = " ".join(f"{100 * s:4.0f}" for s in self.share(name).tolist())
            lines.append(f"{name:{width}}  {self.effective(name):6.2f}  {shares}")
        return "\n".join(lines)
