"""The tokens behind every layer, as long as they are those of the input."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.batch.at import At
from generalist.inspect.asking.look import Look


class Layers(dict[str, Tensor]):
    """A tap that keeps Float[N D] by name, "embedded" and "layers.0" on; none behind a step that changed the tokens."""

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if at.origin is None and (name == "embedded" or name.count(".") == 1):
            self[name] = x.detach()
        return x


@torch.no_grad()
def behind(look: Look, x: Tensor | None = None) -> tuple[dict[str, Float[Tensor, "N D"]], Tensor]:
    """{name: tokens} and log p of every candidate. x: other tokens in the place of the records' own."""
    layers = Layers()
    with look.model.tapped(layers):
        log_p = look.log_p(x)
    return {name: own.float() for name, own in layers.items()}, log_p
