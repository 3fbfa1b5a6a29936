"""`slice:SHARE`: heads, hidden units and channels of convolutional stems are removed for real; that share stays.

What leaves is what the layer that reads it can do without on training data, which is refitted to what stays
(`generalist.compress.ways.refit`). No label is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from generalist.compress.ways.refit import Moments, least, observed
from generalist.compress.ways.stems import SETTING, Stem, narrowed, stems_of
from generalist.compress.ways.weights import check_share
from generalist.compress.work import Work, with_state
from generalist.data.base.errors import UserError
from generalist.nn.encoder import Block
from generalist.nn.mixers.base import Units
from generalist.nn.mixers.table import layers_of
from generalist.recipe.layers import LayerSpec


def blocks_of(model: Any) -> list[tuple[str, Block]]:
    """The encoder's blocks with their names, in the order of its layers."""
    return [(f"encoder.layers.{i}", one) for i, one in enumerate(model.encoder.layers) if isinstance(one, Block)]


def parts_of(block: Block) -> dict[str, tuple[Any, Units]]:
    """{"mixer" or "mlp": (the mixer, its units)} of those that have some."""
    found = {name: (part, part.units) for name, part in (("mixer", block.mixer), ("mlp", block.mlp))}
    return {name: (part, units) for name, (part, units) in found.items() if units is not None}


@torch.no_grad()
def sliced(
    work: Work, moments: dict[str, Moments], keep: dict[str, int], thinner: Mapping[Stem, float] | None = None
) -> dict[str, float]:
    """The model with so many units a part, by the part's name, and with shares of the channels of some stems; {name:
    the share of its output's variance lost}."""
    model, config = work.model, work.model.config
    state, lost = model.state_dict(), dict[str, float]()
    stack: list[LayerSpec] = []
    for (name, block), layer in zip(blocks_of(model), layers_of(config), strict=True):
        for kind, (part, units) in parts_of(block).items():
            own = f"{name}.{kind}"
            chosen = least(units.out.weight, moments[own], units.count, keep.get(own, units.count))
            kept, weight, bias, lost[own] = chosen
            cut = part.cut(kept)
            last = next(f"{n}." for n, module in part.named_modules() if module is units.out)
            cut[f"{last}weight"] = weight.to(cut[f"{last}weight"])
            if f"{last}bias" in cut:
                cut[f"{last}bias"] = cut[f"{last}bias"] + bias.to(cut[f"{last}bias"])
            state |= {f"{own}.{key}": value for key, value in cut.items()}
            sizes: dict[str, Any] = {units.size: len(kept)}
            if units.size == "heads":
                sizes["head_dim"] = units.out.in_features // units.count
            layer = replace(layer, **sizes)
        stack.append(layer)
    modalities = deepcopy(config.modalities)
    for stem, share in (thinner or {}).items():
        own_state, channels, lost[stem.name] = narrowed(stem, [moments[name] for name in stem.readers], share)
        state |= own_state
        modalities[stem.modality][SETTING] = channels
    moe = asdict(config.moe) | {"placement": "none"}  # experts stand in the stack by name
    changes = {"steps": [asdict(layer) for layer in stack], "layers": len(stack), "moe": moe, "modalities": modalities}
    work.becomes(with_state(model, state, **changes))
    return lost


@dataclass
class Slice:
    """Every layer keeps `share` of its heads and of its hidden units, every convolutional stem of a tokenizer `stem` of
    its channels (0 = `share`, 1 = all), at least one of each. samples: looked at."""

    share: float
    samples: int = 512
    stem: float = 0.0

    def check(self) -> None:
        check_share("slice", self.share)
        if not 0 <= self.stem <= 1:
            raise UserError(f"slice: stem={self.stem:g} does not lie in 0 .. 1; 0 = as the layers, 1 = all channels")
        if self.samples < 1:
            raise UserError(f"slice: samples={self.samples}; it must be at least 1, such as 512")

    def run(self, work: Work) -> dict[str, Any]:
        model = work.model
        parts = {f"{n}.{k}": own for n, block in blocks_of(model) for k, own in parts_of(block).items()}
        if not parts:
            raise UserError(
                "slice: no layer of this model has heads or hidden units that can be taken out (experts, norms inside "
                "the mixers and positions that count heads stand in the way); leave slice out"
            )
        stems = [] if self.stem == 1 else stems_of(model)
        readers = {name: model.get_submodule(name) for stem in stems for name in stem.readers}
        of_parts, of_stems = observed(
            work, [units.out for _, units in parts.values()], self.samples, [*readers.values()]
        )
        moments = dict(zip([*parts, *readers], [*of_parts, *of_stems], strict=True))
        seen = [stem for stem in stems if all(moments[name].count for name in stem.readers)]
        keep = {name: max(1, round(self.share * units.count)) for name, (_, units) in parts.items()}
        before = {name: units.count for name, (_, units) in parts.items()}
        sizes = {name: units.size for name, (_, units) in parts.items()}
        lost = sliced(work, moments, keep, dict.fromkeys(seen, self.stem or self.share))
        found: dict[str, Any] = {}
        for size in sorted(set(sizes.values())):
            own = [name for name in parts if sizes[name] == size]
            found |= {f"{size} before": sum(before[n] for n in own), f"{size} after": sum(keep[n] for n in own)}
        for stem in seen:
            after = work.model.config.modalities[stem.modality][SETTING]
            found |= {f"{stem.modality}'s stem before": stem.stem.channels, f"{stem.modality}'s stem after": after}
        return found | {"largest share of a layer's output lost": max(lost.values())}
