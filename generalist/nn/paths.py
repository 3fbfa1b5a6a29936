"""The paths of a residual encoder: what each branch adds to the stream, and what is delivered without some of them.

    delivered = z_0 + sum over layers of (a_l + f_l)        a of the token mixer, f of the channel mixer

Path ensemble: the output is a sum, of which a path is taken out at the end alone; the stream inside goes on as it is,
so that later branches see what they were trained on. Pre-norm blocks that keep their tokens.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.at import At
from generalist.nn.encoder import Block, Encoder
from generalist.nn.mixers.channel import Nothing

START = "embedded"
BRANCH = ".branch"  # how taps see what a branch adds


def paths_of(encoder: Encoder) -> list[str]:
    """ "embedded", "layers.0.mixer", "layers.0.mlp", ... UserError where the output is no sum of them."""
    names = [START]
    for number, layer in enumerate(encoder.layers):
        if not isinstance(layer, Block):
            raise UserError(f"paths: layer {number} changes the tokens, so that the output is no sum over all layers")
        if layer.post_norm or layer.branch_norm:
            raise UserError("paths: this model normalises the stream behind its branches (norm); pre-norm models alone")
        alone = isinstance(layer.mlp, Nothing)
        names += [f"layers.{number}.mixer", *([] if alone else [f"layers.{number}.mlp"])]
    return names


class Paths(dict[str, Tensor]):
    """A tap that keeps what every path adds, Float[N D] by name, and takes some out of what the encoder delivers."""

    def __init__(self, encoder: Encoder, without: Collection[str] = ()) -> None:
        super().__init__()
        self.names, self.without = paths_of(encoder), without
        for name in without:
            if name not in self.names:
                raise UserError(f"paths: there is no path {name!r}; {nearest(name, self.names)}")
        self.last = f"layers.{len(encoder.layers) - 1}"
        self.delivered: Tensor | None = None

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        path = name.removesuffix(BRANCH)
        if path in self.names:
            if path == START:  # a new pass
                self.clear()
            self[path] = x
        if name != self.last:
            return x
        for path in self.without:
            x = x - self[path]
        self.delivered = x
        return x
