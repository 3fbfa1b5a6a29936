"""What a mixer needs of a model and what the model's inputs offer: what cannot work together is refused when read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from generalist.data.base.errors import UserError
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import LayerSpec

__all__ = ["EncoderSpec", "Inputs", "LayerSpec", "Needs", "check_needs"]


@dataclass(frozen=True)
class Needs:
    """axes: of the grids that it mixes, 0: any tokens. causal: it can obey the causal blocks. order: its tokens must
    have one. reach: what a token can learn of, "all" of its sequence, what stands "before" it, its own "grid" or
    itself ("token"). fixed: it has
    weights of the grid's size. line: a grid of one row, a text's or a series', will do.
    """

    axes: int = 0
    causal: bool = True
    order: bool = False
    reach: str = "all"
    fixed: bool = False
    line: bool = False


@dataclass(frozen=True)
class Inputs:
    """What the modalities and tasks of a model bring. axes: {modality: axes of its spans' grids, 0 for a set}; shapes:
    {modality: the one shape of its grids}, where there is one; largest: {modality: the largest of them}, where it is
    known; causal: whether any sequence is causal. asked: the modalities that go into a task, where one line of them is
    worth mixing; None: any.
    """

    axes: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    largest: dict[str, tuple[int, ...]] = field(default_factory=dict)
    causal: bool = False
    asked: frozenset[str] | None = None

    def gridded(self, needs: Needs) -> list[str]:
        """The modalities with grids for a mixer: of its axes, or lines of an input where those will do."""
        lines = [m for m, axes in self.axes.items() if needs.line and axes and (self.asked is None or m in self.asked)]
        return [m for m, axes in self.axes.items() if needs.axes and (axes >= needs.axes or m in lines)]


def check_needs(spec: EncoderSpec, mixers: Iterable[tuple[str, Needs]], inputs: Inputs) -> None:
    """UserError where a mixer needs what the inputs do not offer. mixers: the token and channel mixers by name."""
    reaches = set()
    for name, needs in mixers:
        reaches.add(needs.reach)
        has_grid = inputs.gridded(needs)
        if needs.axes and not has_grid:
            raise UserError(
                f"model: the mixer {name!r} works on grids of {needs.axes} axes, and no modality that is asked about "
                "has one; "
                "take another mixer, or add such a modality"
            )
        if inputs.causal and not needs.causal:
            raise UserError(
                f"model: the mixer {name!r} cannot be causal, and a task or modality of this model is; take another"
            )
        if needs.order and (sets := [m for m, axes in inputs.axes.items() if not axes]):
            raise UserError(
                f"model: the mixer {name!r} needs an order of its tokens, and those of {sets[0]!r} are a set; take "
                "another mixer, or leave the modality out"
            )
        if needs.fixed:
            seen = has_grid or [m for m, axes in inputs.axes.items() if axes]
            loose = [m for m in seen if m not in inputs.shapes]
            if loose or len({inputs.shapes[m] for m in seen}) > 1:
                what = f"the grids of {loose[0]!r} have any size" if loose else f"{seen[0]!r} and others differ in it"
                raise UserError(f"model: the mixer {name!r} has weights of one grid's size, and {what}; take another")
    enough = {"all", "before"} if inputs.causal else {"all"}  # a word to be written stands last, all others first
    if spec.pooling == "asked" and reaches and not enough & reaches:
        raise UserError(
            "model: no mixer lets tokens see beyond their own grid, so an asked token learns nothing of the input; put "
            "an attention among model.mixers, or set model.readout=mean"
        )
