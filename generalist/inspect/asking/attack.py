"""One token of every record disturbed: by noise, as nature does, or so that the answer loses most.

Numbers stay in the range of the values at hand, of a table column by column; ids are those at hand. Are Vision
Transformers Robust to Patch Perturbations? (2111.10659): sign-gradient ascent of -log p of the answer, free within the
patch. Ids have no gradient: of them the worst of as many draws is taken.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from generalist.inspect.asking.disturb import contents, measured, rows_of
from generalist.inspect.asking.look import Look, with_data

SIGMA = 0.3  # of natural noise, as a share of the range
STEPS = 25
STRIDE = 0.1  # of a step, as a share of the range


class Attack:
    """The tokens Bool[N] of a look, one a record, and what their contents may be.

    floats: {(modality, key): (rows, low, high)}; ids likewise with the ids that may stand there.
    """

    def __init__(self, look: Look, tokens: Bool[Tensor, " N"], rng: torch.Generator) -> None:
        self.look, self.rng, self.tokens = look, rng, tokens & look.open
        self.floats: dict[tuple[str, str], tuple[Tensor, Tensor, Tensor]] = {}
        self.ids: dict[tuple[str, str], tuple[Tensor, list[Tensor]]] = {}
        known = contents(look)
        for name, blank in known.items():
            modality, data = look.task.modalities[name], look.packed.data[name]
            rows = rows_of(look, name, self.tokens)
            kinds = [data[key] for key in modality.kind_keys if key not in blank]
            for key in blank if len(rows) else ():
                own = measured(modality, data[key])
                like = [_alike(kinds, row, len(own)) for row in rows.tolist()]
                if own.is_floating_point():
                    low = torch.stack([own[of].amin() for of in like])
                    high = torch.stack([own[of].amax() for of in like])
                    self.floats[name, key] = rows, low, high
                else:
                    self.ids[name, key] = rows, [own[of].unique() for of in like]
        reached = {name for name, _ in [*self.floats, *self.ids]}
        self.bare = [n for n in look.packed.data if n in look.task.inputs and n not in known]
        self.bare = [n for n in self.bare if n not in reached and bool((self._of(n) & self.tokens).any())]

    def _of(self, name: str) -> Tensor:
        return self.look.packed.source == list(self.look.packed.data).index(name)

    def start(self) -> dict[tuple[str, str], Tensor]:
        """The contents as they are, of the rows that are disturbed."""
        data = self.look.packed.data
        found = {
            at: measured(self.look.task.modalities[at[0]], data[at[0]][at[1]])[rows].clone()
            for at, (rows, *_) in self.floats.items()
        }
        found |= {at: data[at[0]][at[1]][rows].clone() for at, (rows, _) in self.ids.items()}
        return found | {(name, ""): self.look.x[self._of(name) & self.tokens].clone() for name in self.bare}

    def tokens_with(self, held: dict[tuple[str, str], Tensor]) -> Float[Tensor, "N D"]:
        """Float[N D] with these contents."""
        look = self.look
        data = {name: dict(own) for name, own in look.packed.data.items()}
        for (name, key), value in held.items():
            if not key:
                continue
            whole = data[name][key].clone()
            rows = (self.floats if (name, key) in self.floats else self.ids)[name, key][0]
            inside = measured(look.task.modalities[name], whole)
            if inside.shape == whole.shape:
                whole = whole.index_copy(0, rows, value)
            else:
                rest = whole[rows][:, inside.shape[1] :]
                whole = whole.index_copy(0, rows, torch.cat([value, rest], 1))
            data[name][key] = whole
        x = with_data(look, data)
        for name in self.bare:
            x = x.index_copy(0, (self._of(name) & self.tokens).nonzero().squeeze(1), held[name, ""].to(x.dtype))
        return x

    def _range(self, at: tuple[str, str], like: Tensor) -> tuple[Tensor, Tensor]:
        if at in self.floats:
            _, low, high = self.floats[at]
        else:
            own = self.look.x[self._of(at[0]) & self.look.open]
            low, high = own.amin().expand(len(like)), own.amax().expand(len(like))
        shape = (-1, *[1] * (like.ndim - 1))
        return low.view(shape), high.view(shape)

    @torch.no_grad()
    def natural(self) -> Float[Tensor, "N D"]:
        """Numbers with Gaussian noise of SIGMA times their range, ids drawn anew."""
        held = self.start()
        for at, value in held.items():
            if at in self.ids:
                held[at] = self._drawn(at, value)
                continue
            low, high = self._range(at, value)
            noise = torch.randn(value.shape, generator=self.rng).to(value)
            held[at] = torch.minimum(torch.maximum(value + SIGMA * (high - low) * noise, low), high)
        return self.tokens_with(held)

    def _drawn(self, at: tuple[str, str], value: Tensor) -> Tensor:
        out = value.clone()
        for i, allowed in enumerate(self.ids[at][1]):
            pick = torch.randint(len(allowed), value[i].shape, generator=self.rng).to(allowed.device)
            out[i] = allowed[pick]
        return out

    def adversarial(self, answers: Tensor, steps: int = STEPS) -> Float[Tensor, "N D"]:
        """The contents under which the answers' log p was lowest, of each record its own, as tokens."""
        held, owner = self.start(), self._owner()
        with torch.no_grad():
            for at, value in held.items():
                if at not in self.ids:
                    low, high = self._range(at, value)
                    held[at] = low + (high - low) * torch.rand(value.shape, generator=self.rng).to(value)
        best = {at: value.clone() for at, value in self.start().items()}
        lowest = torch.full((self.look.count,), torch.inf, device=self.look.x.device)
        for step in range(steps + 1):
            moving = [value.requires_grad_() for at, value in held.items() if at not in self.ids]
            own = self.look.of(self.look.log_p(self.tokens_with(held)), answers)
            grads = torch.autograd.grad(own.sum(), moving) if moving and step < steps else ()
            with torch.no_grad():
                better = own < lowest
                lowest = torch.where(better, own, lowest)
                for at, value in held.items():
                    best[at][better[owner[at]]] = value[better[owner[at]]]
                if step == steps:
                    break
                fresh = iter(grads)
                for at, value in held.items():
                    if at in self.ids:
                        held[at] = self._drawn(at, value)
                        continue
                    low, high = self._range(at, value)
                    moved = value - STRIDE * (high - low) * next(fresh).sign()
                    held[at] = torch.minimum(torch.maximum(moved, low), high).detach()
        with torch.no_grad():
            return self.tokens_with(best)

    def _owner(self) -> dict[tuple[str, str], Tensor]:
        """Of which record each disturbed row is."""
        look, found = self.look, {}
        for at in [*self.floats, *self.ids, *((name, "") for name in self.bare)]:
            found[at] = look.packed.owner[self._of(at[0]) & self.tokens]
        return found


def _alike(kinds: list[Tensor], row: int, count: int) -> Tensor:
    """The rows whose contents may stand in the row's place: those of the same kind, all where there are no kinds."""
    same = torch.ones(count, dtype=torch.bool, device=kinds[0].device if kinds else None)
    for kind in kinds:
        same &= kind == kind[row]
    return same


def one_each(look: Look, place: int, rng_seed: int = 0) -> Bool[Tensor, " N"]:
    """One open token of every record, another at every place; none of a record that has fewer."""
    out = torch.zeros(len(look.x), dtype=torch.bool, device=look.x.device)
    for b, number in enumerate(look.numbers):
        own = (look.open & (look.packed.owner == b)).nonzero().squeeze(1)
        if place < len(own):
            order = torch.randperm(len(own), generator=torch.Generator().manual_seed(rng_seed + number))
            out[own[int(order[place])]] = True
    return out
