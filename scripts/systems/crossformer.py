"""CrossFormer and CrossFormer++: the stem, every block and stage, the position bias of the first block, the logits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.scripts.systems.plain import linear
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.crossformer import CrossFormer
from generalist.tokenizers_mod.maps.window import offsets


def knows(reference: Reference) -> bool:
    return reference.has("patch_embed.projs.0.weight", "layers.0.blocks.0.attn.pos.pos_proj.weight")


def compute(reference: Reference) -> dict[str, Tensor]:
    config, pixels = reference.config, reference["input"]
    config.only(reference.name, pad_type=0, use_cpe=False, no_mask=False, ape=False, patch_norm=True)
    ratios = config.get("mlp_ratio", 4.0)
    groups = group_sizes(reference)
    intervals: list[Any] = list(config["crs_interval"])
    if config.get("adaptive_interval", False):  # as many steps as bring a group over the whole map
        cells = pixels.shape[2] // config["patch_size"][0]
        sides = [cells // 2**i for i in range(len(groups))]
        intervals = [[-(-n // min(g, n)) for g in own] for own, n in zip(groups, sides, strict=True)]
    stages = len(config["depths"])
    made = loaded(
        CrossFormer(
            config["embed_dim"],
            config["depths"],
            config["num_heads"],
            groups,
            intervals,
            ratios if isinstance(ratios, list) else [ratios] * stages,
            config["patch_size"],
            config["merge_size"],
            config.get("use_acl", False),
            pixels.shape[1],
        ),
        with_biases(reference),
        CrossFormer.renamed,
    )
    x = made.stem(pixels)[0].permute(0, 2, 3, 1)
    found = {"cel_out": x.flatten(1, 2)}
    for number, stage in enumerate(made.stages):
        for i, block in enumerate(stage):
            mixer = block.mixer
            how = mixer.groups(*x.shape[1:3])
            found[f"dpb_bias_stage{number}_block{i}"] = mixer.attn.pos(offsets(how.rows, how.columns))
            x = block(x)
            found[f"stage{number}_block{i}_out"] = x.flatten(1, 2)
        if number < stages - 1:
            x = made.between[number](x)
        found[f"stage{number}_out"] = x.flatten(1, 2)
    features = made(pixels)[-1].flatten(2).mean(2)
    return found | {"output": linear(reference.weights, "head", features)}


def group_sizes(reference: Reference) -> list[list[int]]:
    """The side of the groups of every block of every stage: CrossFormer++'s ways to let them grow with depth."""
    config, kind = reference.config, reference.config.get("group_type", "constant")
    depths, given = config["depths"], config["group_size"]
    cells = reference["input"].shape[2] // config["patch_size"][0]
    first, found, count = 4 / cells, list[list[int]](), 0
    for stage, depth in enumerate(depths):
        side, own = cells // 2**stage, list[int]()
        for block in range(depth):
            grown = side * (first + count * (1 - first) / sum(depths))
            if kind == "constant":
                own.append(given[stage])
            elif kind == "7_14":
                own.append(given[stage] // 2 if stage == 2 and block < 4 else given[stage])
            elif kind in ("linear", "linear_div", "alter"):
                whole = grown > side * 3 / 4 if kind == "linear_div" else count % 2 == 1
                if kind != "linear" and grown > side // 2:
                    grown = side if whole or stage != 2 else side // 2
                own.append(max(4, math.ceil(grown)))
            else:
                raise UserError(f"{reference.name}: group_type={kind!r} is not built")
            count += 1
        found.append(own)
    return found


def with_biases(reference: Reference) -> dict[str, Tensor]:
    """The weights with zeros for the biases of queries, keys and values where they have none, and with queries scaled
    as `qk_scale` says."""
    found, scale = {}, reference.config.get("qk_scale")
    heads = reference.config["num_heads"]
    for name, tensor in reference.weights.items():
        found[name] = tensor
        if not name.endswith("attn.qkv.weight"):
            continue
        width = tensor.shape[1]
        bias = reference.weights.get(name.replace("weight", "bias"), torch.zeros(3 * width))
        factor = 1.0 if scale is None else scale * (width // heads[int(name.split(".")[1])]) ** 0.5
        by = torch.cat([torch.full((width,), factor), torch.ones(2 * width)])
        found[name], found[name.replace("weight", "bias")] = tensor * by[:, None], bias * by
    return found
