"""Region proposers: images -> proposals with a vector, a box, an objectness and maybe a mask.

The networks are a library's. This is the one explicit table of them; every adapter is a small class that owns no
attention code and satisfies `RegionProposer`. Class heads are binary, foreground or background (Uni-Perceiver v2,
2211.09808, section 3.1).
"""

from __future__ import annotations

from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.tokenizers_mod.regions.proposers.base import Objects, Proposals, RegionProposer

# name -> where its adapter is built: build(name, settings) -> RegionProposer
PROPOSERS: dict[str, str] = {
    "rt_detr": "tokenizers_mod.proposers.rt_detr:RTDetrProposer",
    "rt_detr_v2": "tokenizers_mod.proposers.rt_detr:RTDetrProposer",
    "d_fine": "tokenizers_mod.proposers.rt_detr:RTDetrProposer",
    "rf_detr": "tokenizers_mod.proposers.rf_detr:RfDetrProposer",
    "deformable_detr": "tokenizers_mod.proposers.deformable:DeformableProposer",
    "mask2former": "tokenizers_mod.proposers.mask2former:Mask2FormerProposer",
}


def build_proposer(
    name: str, config: dict[str, Any], backbone: dict[str, Any], masks: bool, checkpoint: str = ""
) -> RegionProposer:
    """The proposer of that name; UserError for an unknown name or a setting that its library does not take."""
    path = PROPOSERS.get(name)
    if path is None:
        raise UserError(f"region: unknown proposer {name!r}; {nearest(name, PROPOSERS)}")
    return by_name(path)(name, config, backbone, masks, checkpoint)


__all__ = ["PROPOSERS", "Objects", "Proposals", "RegionProposer", "build_proposer"]
