"""`Step`: from packed tokens to packed tokens, which may change their number and width."""

from __future__ import annotations

from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pieces import Piece

# a name and where its class is, or the class: kind(width, out, **settings)
STAGES: dict[str, str | type[nn.Module]] = {
    "merge": "generalist.nn.steps.merge:Merge",
    "spatial": "generalist.nn.steps.spatial:Spatial",
    "keep": "generalist.nn.steps.keep:Keep",
    "cluster": "generalist.nn.steps.cluster:Cluster",
}


class Step(nn.Module):
    """Base. width: of what comes out."""

    width: int

    def forward(self, x: Tensor, at: At) -> tuple[Tensor, At]:
        """Float[N D] and where they stand -> Float[N' width] and where those stand."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")


def may_change(piece: Piece) -> bool:
    """Whether a step may take tokens out of a piece: a map of two axes or more, of which none is asked, causal or
    hidden."""
    return piece.shape is not None and len(piece.shape) > 1 and not (piece.asked or piece.bound)


def same_width(name: str, width: int, out: int) -> int:
    """The one width of a step that leaves it. UserError for two."""
    if width != out:
        raise UserError(f"model.steps: {name} does not change the width of {width} to {out}; leave its width out")
    return out
