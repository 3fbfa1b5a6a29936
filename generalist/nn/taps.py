"""Look on at what flows through the encoder, or put something in.

with model.tapped(tap):
    model.features(packed)

A tap is called as tap(name, x, at) and returns x, or what is to stand in its stead. Names, N tokens in packed order:

    embedded                  Float[N D]        what enters the encoder
    layers.3                  Float[N D]        what layer 3 puts out
    layers.3.mixer.branch     Float[N D]        what the token mixer adds to the stream; "mlp": the channel mixer
    layers.3.mixer.heads      Float[N H d]      attention's heads in front of their output matrix
    layers.3.mixer.weights    Float[B H n k]    attention weights, of kernels that have them ("eager"), part by part
    layers.3.mlp.experts      Float[N E]        gate weights of a mixture of experts, 0 where one does not serve; to
                                                be looked at only
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from generalist.data.batch.at import At, Tap


class Tapped:
    """What a model is that lets taps look on."""

    taps: tuple[Tap, ...] = ()

    @contextmanager
    def tapped(self, *taps: Tap) -> Iterator[None]:
        """The taps look on inside, behind those that do already."""
        before = self.taps
        self.taps = (*before, *taps)
        try:
            yield
        finally:
            self.taps = before


class Kept(dict[str, list[Tensor]]):
    """A tap that keeps what it sees: {name: every tensor}, of names with one of these endings."""

    def __init__(self, *endings: str) -> None:
        super().__init__()
        self.endings = endings

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name.endswith(self.endings):
            self.setdefault(name, []).append(x)
        return x
