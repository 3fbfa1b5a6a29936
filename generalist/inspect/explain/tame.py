"""T-TAME for a model that ranks candidates: a small head that says which tokens an answer needs, trained on the model.

    g_l = relu(BN(conv(f_l)) + f_l)         of the last layers' tokens, conv over one token
    c   = < W [g_1 g_2 g_3] + b, e >        e the unit vector of the candidate: the class's row, of any candidate
    a   = sigmoid(c)                        the mask

    loss = 1.5 CE(model(a x + (1 - a) blank), y) + 2 mean((a + 5e-4)^.3) + .01 smoothness

y is the model's own answer to the clean input, so no labels are needed; the model is frozen. smoothness: the squared
differences of neighbours on a grid and .3 of the squares at its edge, over twice the records. Written from the formulas
of the paper (2403.04523); its classifier's C classes are the candidates here, so that new ones can be explained too.
Explanations are a brought to 0..1, where the paper takes c: the same order of tokens, what is not needed near 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from generalist.inspect.asking.disturb import blanked
from generalist.inspect.asking.layers import behind
from generalist.inspect.asking.look import Look
from generalist.inspect.explain.faithful import masked

SETS = 3  # layers
FIT, AREA, SMOOTH, EDGE = 1.5, 2.0, 0.01, 0.3
LR, DECAY = 3e-3, 5e-4
EPOCHS, LEAST, MOST = 8, 150, 400  # steps: as many as these epochs take, within bounds


class Tame(nn.Module):
    """widths: of the feature sets; out: of the candidates' vectors."""

    def __init__(self, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Linear(width, width) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)
        self.maps = nn.Linear(sum(widths), out)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, sets: Sequence[Float[Tensor, "N D"]], candidate: Float[Tensor, "N E"]) -> Float[Tensor, " N"]:
        """c of every token for the candidate of its record."""
        found = []
        for f, conv, norm in zip(sets, self.convs, self.norms, strict=True):
            own = layer_norm(f, f.shape[-1:])
            found.append((norm(conv(own)) + own).relu())
        return (self.maps(torch.cat(found, 1)) * candidate).sum(1) * math.sqrt(candidate.shape[1]) + self.bias


@torch.no_grad()
def seen(look: Look) -> tuple[list[str], list[Tensor], Tensor, Tensor]:
    """Names and tokens of the feature sets, log p of every candidate, what is answered."""
    tokens, log_p = behind(look)
    last = list(tokens)[-SETS:]
    return last, [tokens[name] for name in last], log_p, look.chosen(log_p)


def smoothness(look: Look, mask: Float[Tensor, " N"]) -> Tensor:
    """Squared differences between neighbours of every whole grid, and EDGE of the squares at its edge."""
    total = mask.new_zeros(())
    for piece, _ in look.spans():
        if piece.shape is None or piece.cells is not None:
            continue
        grid = mask[piece.start : piece.start + piece.length].view(piece.shape)
        for axis, size in enumerate(grid.shape):
            total = total + grid.diff(dim=axis).square().sum()
            total = (
                total + EDGE * grid.index_select(axis, torch.tensor([0, size - 1], device=mask.device)).square().sum()
            )
    return total / (2 * look.count)


def loss(look: Look, blank: Tensor, mask: Float[Tensor, " N"], answers: Tensor) -> Tensor:
    """What the head is trained by."""
    fit = -look.of(look.log_p(masked(look, blank, mask)), answers).mean()
    return FIT * fit + AREA * (mask[look.open] + 5e-4).pow(0.3).mean() + SMOOTH * smoothness(look, mask)


def train(batches: Sequence[Look], seed: int = 0) -> tuple[Tame, list[str]]:
    """The head trained on these records, in turn, and the names of its feature sets."""
    steps = min(max(EPOCHS * len(batches), LEAST), MOST)
    known = [seen(look) for look in batches]
    blanks = [blanked(look) for look in batches]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tame = Tame([own.shape[1] for own in known[0][1]], batches[0].members.shape[-1]).to(batches[0].x.device)
    # the paper's SGD at 1e-3 needs its 8 epochs of a million pictures; this learns from hundreds of records
    optimizer = torch.optim.AdamW(tame.parameters(), lr=LR, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for step in range(steps):
        number = step % len(batches)
        look, (_, sets, _, answers) = batches[number], known[number]
        optimizer.zero_grad()
        mask = tame(sets, look.directions(answers)[look.packed.owner]).sigmoid()
        loss(look, blanks[number], mask, answers).backward()
        nn.utils.clip_grad_norm_(tame.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return tame.eval(), known[0][0]


@torch.no_grad()
def heat(tame: Tame, look: Look) -> tuple[Float[Tensor, " N"], Tensor]:
    """a of every token for what is answered, and the answers."""
    _, sets, _, answers = seen(look)
    return tame(sets, look.directions(answers)[look.packed.owner]).sigmoid(), answers
