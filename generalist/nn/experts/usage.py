"""Which experts serve what: statistics of a model's routers over the batches that pass while they are looked at.

with ExpertUsage(model) as usage:
    model.features(packed)
print(usage.table())
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.nn.experts.experts import Experts
from generalist.nn.taps import Tapped


class ExpertUsage:
    """Tokens that every expert served and the gate weight it gave them, by the name of the mixer.

    tokens: {mixer: Float[E]}, a token counts once for each of its k experts; weight: {mixer: Float[E]}, sums to the
    number of tokens. rows: {mixer: {row of the routes' table: gate weights Float[E]}} for models that route by row.
    """

    def __init__(self, model: Tapped) -> None:
        self.model, self.open = model, ExitStack()
        self.tokens: dict[str, Tensor] = {}
        self.weight: dict[str, Tensor] = {}
        self.rows: dict[str, dict[tuple[int, ...], Tensor]] = {}

    def __enter__(self) -> ExpertUsage:
        self.open.enter_context(self.model.tapped(self.look))
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    @torch.no_grad()
    def look(self, name: str, x: Tensor, at: At) -> Tensor:
        """The tap."""
        place, _, ending = name.rpartition(".")
        mixer = f"encoder.{place}"
        if ending == Experts.TAP:
            self.tokens[mixer] = self.tokens.get(mixer, 0) + (x > 0).sum(0)
            self.weight[mixer] = self.weight.get(mixer, 0) + x.sum(0)
            if at.routes is not None:
                own, index = self.rows.setdefault(mixer, {}), at.routes.index
                for number, row in enumerate(at.routes.table.tolist()):
                    if len(tokens := (index == number).nonzero()):
                        own[tuple(row)] = x[tokens[0, 0]]
        return x

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
