"""One token of every record disturbed: by noise, as nature does, or so that the answer loses most.

Numbers stay in the range of the records at hand, of a table column by column; ids are those at hand. Are Vision
Transformers Robust to Patch Perturbations? (2111.10659): sign-gradient ascent of -log p of the answer, free within the
patch. Where a token shows a single number, values all over its range are tried instead, and ids one by one: those first
whose tokens lie furthest down the gradient (HotFlip, 1712.06751).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from generalist.inspect.asking.disturb import contents, measured, rows_of
from generalist.inspect.asking.look import Look, with_data
from generalist.inspect.asking.pool import At, Pool

SIGMA = 0.3  # of natural noise, as a share of the usual range
STEPS = 25
STRIDE = 0.1  # of a step, as a share of the range
WEIGHED = 256  # ids of which the gradient says which to try

Held = dict[At, Tensor]


class Attack:
    """The tokens Bool[N] of a look, one a record, and what their contents may be, of those in a pool.

    floats: {(modality, key): (rows, low, high, spread)}; ids likewise with the ids that may stand there, and how often
    each does.
    """

    def __init__(self, look: Look, tokens: Bool[Tensor, " N"], rng: torch.Generator, pool: Pool) -> None:
        self.look, self.rng, self.tokens = look, rng, tokens & look.open
        self.floats: dict[At, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self.ids: dict[At, tuple[Tensor, list[Tensor], list[Tensor]]] = {}
        known = contents(look)
        for name, blank in known.items():
            modality, data = look.task.modalities[name], look.packed.data[name]
            rows = rows_of(look, name, self.tokens)
            kinds = [data[key] for key in modality.kind_keys if key not in blank]
            of_row = [tuple(int(kind[row]) for kind in kinds) for row in rows.tolist()]
            for key in blank if len(rows) else ():
                if data[key].is_floating_point():
                    ranges = [pool.range_of((name, key), kind) for kind in of_row]
                    low, high, spread = torch.tensor(ranges, device=data[key].device).to(data[key].dtype).unbind(1)
                    self.floats[name, key] = rows, low, high, spread
                else:
                    allowed, often = zip(*(pool.ids_of((name, key), kind) for kind in of_row), strict=True)
                    self.ids[name, key] = rows, list(allowed), list(often)
        reached = {name for name, _ in [*self.floats, *self.ids]}
        self.bare = [n for n in look.packed.data if n in look.task.inputs and n not in known]
        self.bare = [n for n in self.bare if n not in reached and bool((self._of(n) & self.tokens).any())]

    def _of(self, name: str) -> Tensor:
        return self.look.packed.source == list(self.look.packed.data).index(name)

    def start(self) -> Held:
        """The contents as they are, of the rows that are disturbed."""
        data = self.look.packed.data
        found = {
            at: measured(self.look.task.modalities[at[0]], data[at[0]][at[1]])[rows].clone()
            for at, (rows, *_) in self.floats.items()
        }
        found |= {at: data[at[0]][at[1]][rows].clone() for at, (rows, *_) in self.ids.items()}
        return found | {(name, ""): self.look.x[self._of(name) & self.tokens].clone() for name in self.bare}

    def tokens_with(self, held: Held) -> Float[Tensor, "N D"]:
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

    def _range(self, at: At, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """low, high and the spread that is usual."""
        if at in self.floats:
            _, low, high, spread = self.floats[at]
        else:
            own = self.look.x[self._of(at[0]) & self.look.open]
            low, high = own.amin().expand(len(like)), own.amax().expand(len(like))
            spread = high - low
        shape = (-1, *[1] * (like.ndim - 1))
        return low.view(shape), high.view(shape), spread.view(shape)

    @torch.no_grad()
    def natural(self) -> Float[Tensor, "N D"]:
        """Numbers with Gaussian noise of SIGMA times their usual range, ids drawn anew as often as each occurs."""
        held = self.start()
        for at, value in held.items():
            if at in self.ids:
                _, allowed, often = self.ids[at]
                for i, (ids, counts) in enumerate(zip(allowed, often, strict=True)):
                    pick = torch.multinomial(counts, value[i].numel(), replacement=True, generator=self.rng)
                    value[i] = ids[pick.to(ids.device)].view(value[i].shape)
                continue
            low, high, spread = self._range(at, value)
            noise = torch.randn(value.shape, generator=self.rng).to(value)
            held[at] = torch.minimum(torch.maximum(value + SIGMA * spread * noise, low), high)
        return self.tokens_with(held)

    def adversarial(self, answers: Tensor, steps: int = STEPS) -> Float[Tensor, "N D"]:
        """The contents under which the answers' log p was lowest, of each record its own, as tokens."""
        held, owner, order = self.start(), self._owner(), self._order(answers, steps)
        moving = [at for at, value in held.items() if at not in self.ids and not self._single(at, value)]
        with torch.no_grad():
            for at in moving:
                low, high, _ = self._range(at, held[at])
                held[at] = low + (high - low) * torch.rand(held[at].shape, generator=self.rng).to(held[at])
        best = {at: value.clone() for at, value in self.start().items()}
        lowest = torch.full((self.look.count,), torch.inf, device=self.look.x.device)
        for step in range(steps + 1):
            with torch.no_grad():
                for at in held.keys() - set(moving):
                    held[at] = self._tried(at, held[at], order, step)
            leaves = [held[at].requires_grad_() for at in moving]
            own = self.look.of(self.look.log_p(self.tokens_with(held)), answers)
            grads = torch.autograd.grad(own.sum(), leaves) if leaves and step < steps else ()
            with torch.no_grad():
                better = own < lowest
                lowest = torch.where(better, own, lowest)
                for at, value in held.items():
                    best[at][better[owner[at]]] = value[better[owner[at]]]
                for at, grad in zip(moving, grads, strict=False):
                    low, high, _ = self._range(at, held[at])
                    moved = held[at] - STRIDE * (high - low) * grad.sign()
                    held[at] = torch.minimum(torch.maximum(moved, low), high).detach()
        with torch.no_grad():
            return self.tokens_with(best)

    def _single(self, at: At, value: Tensor) -> bool:
        return at in self.floats and value[0].numel() == 1

    def _tried(self, at: At, value: Tensor, order: dict[At, list[Tensor]], step: int) -> Tensor:
        """What stands at single numbers and at ids in one step."""
        if at in self.ids:
            ids = [own[step % len(own)] for own in order[at]]
            return torch.stack(ids).view(-1, *[1] * (value.ndim - 1)).expand_as(value).to(value)
        low, high, _ = self._range(at, value)
        return (low + (high - low) * spread_out(step)).expand_as(value).clone()

    def _order(self, answers: Tensor, steps: int) -> dict[At, list[Tensor]]:
        """The ids that may stand in every row: where more than are tried, those first with which the answer would lose
        most if log p were as straight as its gradient says."""
        found = {at: own for at, (_, own, _) in self.ids.items()}
        most = max((len(ids) for own in found.values() for ids in own), default=0)
        if most <= steps + 1:
            return found
        x = self.tokens_with(self.start()).detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.look.of(self.look.log_p(x), answers).sum(), x)
        rng = torch.Generator().manual_seed(0)  # its own: the other contents begin alike however many steps there are
        drawn = {
            at: [ids[torch.randperm(len(ids), generator=rng)[:WEIGHED].to(ids.device)] for ids in own]
            for at, own in found.items()
        }
        losses = []
        with torch.no_grad():
            for number in range(min(most, WEIGHED)):
                held = self.start()
                held |= {at: self._tried(at, held[at], drawn, number) for at in drawn}
                losses.append(((self.tokens_with(held) - x) * grad).sum(1))
        loss = torch.stack(losses)  # Float[ids N]
        for at, own in drawn.items():
            tokens = (self._of(at[0]) & self.tokens).nonzero().squeeze(1).tolist()
            own[:] = [ids[loss[: len(ids), token].argsort()] for ids, token in zip(own, tokens, strict=True)]
        return drawn

    def _owner(self) -> dict[At, Tensor]:
        """Of which record each disturbed row is."""
        look, found = self.look, {}
        for at in [*self.floats, *self.ids, *((name, "") for name in self.bare)]:
            found[at] = look.packed.owner[self._of(at[0]) & self.tokens]
        return found


def spread_out(number: int) -> float:
    """The number-th of values that lie ever more densely in 0 .. 1, both ends first (van der Corput's sequence)."""
    if number < 2:
        return float(number)
    found, part, rest = 0.0, 0.5, number - 1
    while rest:
        found, part, rest = found + part * (rest % 2), part / 2, rest // 2
    return found


def one_each(look: Look, place: int, rng_seed: int = 0) -> Bool[Tensor, " N"]:
    """One open token of every record, another at every place; none of a record that has fewer."""
    out = torch.zeros(len(look.x), dtype=torch.bool, device=look.x.device)
    for b, number in enumerate(look.numbers):
        own = (look.open & (look.packed.owner == b)).nonzero().squeeze(1)
        if place < len(own):
            order = torch.randperm(len(own), generator=torch.Generator().manual_seed(rng_seed + number))
            out[own[int(order[place])]] = True
    return out
