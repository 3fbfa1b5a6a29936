"""Manhattan attention (RMT, 2309.11523): scores fall with the distance of two cells, whole or an axis at a time.

    a_ij = softmax_j( turn(q_i) turn(k_j) / sqrt(d) + log(gamma_h) (|di| + |dj|) )      o = a v + depthwise 5x5 of v

gamma_h = 1 - 2^-(initial + span h / heads). The decay stands inside the softmax, as in the authors' code; the paper
writes it behind. Queries and keys turn by their cell's number row by row, neighbouring channels a pair. Along axes: the
softmax runs over the cells of a row, then, on what it gave, over those of a column, each with its own distances.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.maps.base import MapOperator, convolved, kept


def decays(heads: int, initial: float, span: float) -> Float[Tensor, " heads"]:
    """log(gamma) of every head, all below 0."""
    return torch.log(1 - 2 ** (-initial - span * torch.arange(heads, dtype=torch.float) / heads))


def turns(cells: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles of cells by their number: Int[...] -> Float[... width] twice."""
    angle = (10000 ** -torch.linspace(0, 1, width // 2, device=cells.device)).repeat_interleave(2)
    turned = cells.unsqueeze(-1) * angle
    return turned.cos(), turned.sin()


def turn(x: Float[Tensor, "... d"], cosine: Tensor, sine: Tensor) -> Float[Tensor, "... d"]:
    """Neighbouring channels (z0, z1) as a pair turned by its angle."""
    crossed = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return (x * cosine + crossed * sine).to(x.dtype)


class Manhattan(MapOperator):
    """axes: a row, then a column at a time: H W (H + W) scores instead of (H W)^2."""

    def __init__(
        self, width: int, heads: int, axes: bool = True, initial: float = 2.0, span: float = 4.0, local: int = 5
    ) -> None:
        """local: side of the depthwise convolution of the values, 0 for none."""
        super().__init__()
        check_decay(width, heads, initial, span)
        if local and not local % 2:
            raise UserError(f"model: decay_axes local {local}; a window with a middle is odd, such as 5, or 0 for none")
        self.heads, self.axes = heads, axes
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.local = nn.Conv2d(width, width, local, padding=local // 2, groups=width) if local else None
        self.out = nn.Linear(width, width)
        self.initial, self.span = initial, span

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        rows, columns = x.shape[1:3]
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.q, self.k, self.v))
        cells = torch.arange(rows * columns, device=x.device).view(rows, columns, 1)
        angles = turns(cells, q.shape[-1])
        mixed = self.mix(turn(q, *angles), turn(k, *angles), v, real).flatten(3)
        return self.out(mixed if self.local is None else mixed + convolved(self.local, kept(v.flatten(3), real)))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Float[Tensor, "G H W h d"]:
        """Float[G H W h d] x 3 -> Float[G H W h d]."""
        rows, columns = q.shape[1:3]
        decay = decays(self.heads, self.initial, self.span).to(q.device)
        if self.axes:
            v = attend(q, k, v, distance(columns, q.device) * decay[:, None, None], real)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            real = None if real is None else real.transpose(1, 2)
            return attend(q, k, v, distance(rows, q.device) * decay[:, None, None], real).transpose(1, 2)
        across, down = distance(columns, q.device), distance(rows, q.device)
        apart = (down[:, None, :, None] + across[None, :, None, :]).flatten(2).flatten(0, 1)
        q, k, v = (t.flatten(1, 2).unsqueeze(1) for t in (q, k, v))
        real = None if real is None else real.flatten(1).unsqueeze(1)
        return attend(q, k, v, apart * decay[:, None, None], real).squeeze(1).unflatten(1, (rows, columns))


def distance(n: int, device: torch.device) -> Float[Tensor, "n n"]:
    """|i - j|."""
    at = torch.arange(n, device=device, dtype=torch.float)
    return (at[:, None] - at).abs()


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "h n n"], real: Tensor | None) -> Tensor:
    """Attention within the last axis of lines: Float[G L n h d] x 3, real Bool[G L n] or None -> Float[G L n h d]."""
    queries, keys, values = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
    mask = bias.to(q.dtype)
    if real is not None:  # a cell sees itself, so that no row of the mask is empty
        seen = real.flatten(0, 1)[:, None, :] | torch.eye(real.shape[-1], dtype=torch.bool, device=real.device)
        mask = mask.masked_fill(~seen.unsqueeze(1), -torch.inf)
    return scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).unflatten(0, q.shape[:2])


def check_decay(width: int, heads: int, initial: float, span: float) -> None:
    """UserError for heads that cannot turn or decay."""
    if width % heads or (width // heads) % 2:
        raise UserError(f"model: decay needs heads of an even width; width {width} has {heads} of {width / heads:g}")
    if initial <= 0 or span < 0:
        raise UserError(f"model: decay initial={initial}, span={span}; initial > 0 and span >= 0 are needed")
