"""`ia_red`: interpreters that drop tokens of maps, trained on a finished model (IA-RED^2, 2106.12620, section 3).

A `Keep` goes in front of each group of layers. From the front group on, one after the other,

    u ~ Bernoulli(score)        R(u) = 1 - (kept / N)^2 where the law's answer is right, else -tau
    gradient = (R(u) - R(greedy)) grad log p(u)        greedy: u = score > 1/2, the self-critical baseline

with the model fixed; groups behind the trained one drop nothing more. A token once dropped stays dropped. Then the
layers behind the interpreter and the head are taught again, by the law and the source's ranking, with it fixed. tau is
3, 5 and 8 from group to group, the authors' constants: the further back, the more there is to lose. N counts the
tokens of a sequence's maps. Against the source an interpreter begins by keeping every token (its scores begin at .8,
the same for all), so that it learns what to drop and not what to keep. Deployed by a share each map keeps equally many,
so that sequences of one length stay of one length; by the threshold as many as score above a half.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist.compress.lessons import Lessons, Pace, teach
from generalist.compress.right import Judged
from generalist.compress.ways.steps import numbers_of, with_steps
from generalist.compress.work import Work
from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.at import At
from generalist.data.batch.types import Batch
from generalist.nn.readout import reads_all
from generalist.nn.steps.base import may_change
from generalist.nn.steps.keep import Keep
from generalist.recipe.layers import divides

MODES = ("share", "threshold")
BEGIN = 0.8  # what every token scores before anything is learnt
RATE, FINE = 3e-3, 5e-4  # peak rates of interpreters, and of the layers that are taught again
TAUS = (3.0, 5.0, 8.0)  # of the groups from the front on: what a wrong answer costs
SMOOTH = 0.9  # of the running mean of what is kept


@dataclass
class IaRed:
    """share: of a map's tokens that each group keeps of those that reach it, 0 = what its interpreter keeps of them on
    average. groups: of layers, 0 = two, or three of six layers and more. by: "share" or "threshold", how tokens are
    chosen once it is trained. tau: what a wrong answer costs an interpreter, 0 = TAUS. steps: of each interpreter;
    seconds: in all, half of them for the layers."""

    share: float = 0.0
    groups: int = 0
    by: str = "share"
    interpreter_heads: int = 0
    tau: float = 0.0
    steps: int = 400
    seconds: float = 90.0
    lr: float = 0.0

    def check(self) -> None:
        if not 0 <= self.share < 1:
            raise UserError(f"ia_red: the share {self.share:g} does not lie in 0 <= share < 1; 0 = as trained")
        if self.by not in MODES:
            raise UserError(f"ia_red: by={self.by!r}; {nearest(self.by, MODES)} ({' or '.join(MODES)})")
        if self.groups < 0 or self.interpreter_heads < 0:
            raise UserError("ia_red: groups and interpreter_heads are positive, or 0 for the usual number")
        if not 0 <= self.tau < float("inf"):
            raise UserError(f"ia_red: tau={self.tau:g}; it is positive, or 0 for the usual ones")
        Pace(self.steps, self.seconds, self.lr).check("ia_red")

    def run(self, work: Work) -> dict[str, Any]:
        places = self.places(work.model)
        heads = self.interpreter_heads or work.model.config.heads
        divides(heads, work.model.config.width)
        stage = {"kind": "keep", "share": 0.0, "interpreter_heads": heads}
        numbers = with_steps(work, dict.fromkeys(places, stage))
        keeps = [(f"layers.{n}", work.model.encoder.layers[n]) for n in numbers]
        for _, keep in keeps:
            begin(keep)
        part, shares = self.seconds / (2 * len(places)), list[float]()
        blocks = numbers_of(work.model)
        for i, (name, keep) in enumerate(keeps):
            for _, other in keeps[i:]:
                other.share = 1.0  # those behind drop nothing more
            keep.share = 0.0
            pace = Pace(self.steps, part, self.lr)
            tau = self.tau or TAUS[min(i, len(TAUS) - 1)]
            shares.append(reinforce(work.model, work.lessons, name, keep, pace, tau))
            keep.share = 0.0 if self.by == "threshold" else self.share or max(0.05, round(shares[-1], 2))
            own = ("head.", *(f"encoder.layers.{n}." for n in blocks if n >= numbers[i]))
            teach(work.model, work.lessons, Pace(self.steps, part), FINE, work.source, only=own)
        deployed(work, {block: keep.share for block, (_, keep) in zip(places, keeps, strict=True)})
        kept = math.prod(keep.share or share for (_, keep), share in zip(keeps, shares, strict=True))
        told = {
            f"kept by group {i}": keep.share or s for i, ((_, keep), s) in enumerate(zip(keeps, shares, strict=True))
        }
        return told | {"kept at the end": kept}

    def places(self, model: Any) -> list[int]:
        """The layers in front of which an interpreter goes."""
        layers = model.config.layers
        if not layers:
            raise UserError("ia_red: this model has no layers between which tokens could be dropped")
        if reads_all(model.pooling):
            raise UserError("ia_red: this model reads all of its tokens (model.readout), so that none can be dropped")
        groups = min(layers, self.groups or (3 if layers >= 6 else 2))
        places = [i * layers // groups for i in range(groups)]
        if any(model.config.stack()[i].stage for i in places):
            raise UserError("ia_red: a step stands in front of these layers already; choose another number of groups")
        return places


@torch.no_grad()
def begin(keep: Keep) -> None:
    """Every token scores BEGIN, whatever it is: constant queries and keys, whose product is the wanted logit."""
    width = keep.width // keep.heads
    each = math.sqrt(math.log(BEGIN / (1 - BEGIN)) / math.sqrt(width))
    for linear in (keep.query, keep.key):
        linear.weight.zero_()
        linear.bias.fill_(each)
    torch.nn.init.xavier_uniform_(keep.key.weight)
    keep.key.weight.mul_(0.1)


@dataclass
class Drawn:
    """A tap that decides in the interpreter's stead, by a draw or greedily, and remembers what it decided.

    log_p: of the draw, by sequence Float[B], with gradient; kept: of each sequence's map tokens, Float[B]; counts:
    Float[B], how many those were at first, alive: when they came here.
    """

    name: str
    greedy: bool
    sequences: int
    log_p: Tensor | None = None
    kept: Tensor | None = None
    counts: Tensor | None = None
    alive: Tensor | None = None

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name == "embedded":
            self.counts = by_sequence(x.new_ones(len(x)), at, self.sequences)
        if name != f"{self.name}.keep":
            return x
        score = x.float().clamp(1e-6, 1 - 1e-6)
        chosen = (score > 0.5 if self.greedy else torch.rand_like(score) < score).float().detach()
        log_p = chosen * score.log() + (1 - chosen) * (1 - score).log()
        self.log_p = by_sequence(log_p, at, self.sequences)
        self.kept = by_sequence(chosen, at, self.sequences)
        self.alive = by_sequence(torch.ones_like(chosen), at, self.sequences)
        return chosen.to(x.dtype)


def by_sequence(values: Tensor, at: At, sequences: int) -> Tensor:
    """The sum of values over the tokens of maps that may be dropped: Float[N] -> Float[B]."""
    piece, cell = at.cells
    owner = torch.tensor([p.sequence if may_change(p) else sequences for p in at.placed]).clamp(max=sequences)[piece]
    owner[cell < 0] = sequences  # the rest
    return values.new_zeros(sequences + 1).index_add(0, owner.to(values.device), values)[:sequences]


def reward(kept: Tensor, counts: Tensor, right: Tensor, tau: float) -> Tensor:
    """1 - (kept / N)^2 for the share of a sequence's answers that is right, -tau for the rest: Float[B]."""
    return right * (1 - (kept / counts.clamp(min=1)) ** 2) - (1 - right) * tau


def surrogate(log_p: Tensor, drawn: Tensor, greedy: Tensor, real: Tensor) -> Tensor:
    """What has REINFORCE's gradient: -mean (R(u) - R(greedy)) log p(u), over the sequences that have maps."""
    return -((drawn - greedy).detach() * log_p * real).sum() / real.sum().clamp(min=1)


@contextmanager
def masked(model: Any) -> Iterator[None]:
    """Dropped tokens stay in their places, hidden: whatever is drawn, a batch is of the lengths that it was."""
    keeps = [module for module in model.encoder.layers if isinstance(module, Keep)]
    for keep in keeps:
        keep.masked = True
    try:
        yield
    finally:
        for keep in keeps:
            keep.masked = False


def reinforce(model: Any, lessons: Lessons, name: str, keep: Keep, pace: Pace, tau: float) -> float:
    """Trains one interpreter with all else fixed; the running mean of the share that it keeps of what reaches it."""
    model.eval()
    judged = Judged(model, lessons)
    before = {p: p.requires_grad for p in model.parameters()}
    model.requires_grad_(False)
    keep.requires_grad_(True)
    optimizer = torch.optim.Adam(keep.parameters(), pace.lr or RATE)
    began, share, met = time.perf_counter(), 1.0, False
    with masked(model):
        for step, batch in enumerate(lessons.batches(lessons.recipe.seed)):
            gone = max(step / pace.steps, (time.perf_counter() - began) / pace.seconds)
            if gone >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = (pace.lr or RATE) * max(0.05, 0.5 * (1 + math.cos(math.pi * gone)))
            found = pass_twice(model, judged, name, batch.to(model.device), tau)
            if found is None:
                continue
            loss, now = found
            share, met = (now if not met else SMOOTH * share + (1 - SMOOTH) * now), True
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for parameter, had in before.items():
        parameter.requires_grad_(had)
    if not met:
        raise UserError(
            "ia_red drops tokens of pictures and other maps of two axes that no question stands at, and this model's "
            "tasks have none; leave it out"
        )
    return share


def pass_twice(model: Any, judged: Judged, name: str, batch: Batch, tau: float) -> tuple[Tensor, float] | None:
    """The surrogate of a batch, greedily and drawn; the share of its map tokens at hand that is kept greedily."""
    sequences = batch.inputs.sequences
    greedy, drawn = (Drawn(name, is_greedy, sequences) for is_greedy in (True, False))
    with torch.no_grad(), model.tapped(greedy):
        base = judged.right(batch)
    with model.tapped(drawn):
        found = judged.right(batch)
    assert greedy.kept is not None and greedy.counts is not None and greedy.alive is not None
    assert drawn.kept is not None and drawn.log_p is not None
    real = (greedy.counts > 0).float()
    if not bool(real.any()):
        return None
    of_draw = reward(drawn.kept, greedy.counts, found, tau)
    of_greedy = reward(greedy.kept, greedy.counts, base, tau)
    share = greedy.kept.sum() / greedy.alive.sum().clamp(min=1)
    return surrogate(drawn.log_p, of_draw, of_greedy, real), float(share)


def deployed(work: Work, shares: dict[int, float]) -> None:
    """The shares stand in the configuration too, by the block that an interpreter is in front of."""
    steps = [dict(one) for one in work.model.config.steps]
    for block, share in shares.items():
        steps[block] |= {"stage": steps[block]["stage"] | {"share": share}}
    work.model.config.steps = steps
