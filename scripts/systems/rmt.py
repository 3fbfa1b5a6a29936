"""RMT: Manhattan attention alone, one block, and the whole network with its head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.rmt import RMT, RMTBlock
from generalist.tokenizers_mod.maps.decay import Manhattan, decays, distance, turns


def knows(reference: Reference) -> bool:
    return any(reference.has(key) for key in ("lepe.conv.weight", "retention.lepe.conv.weight")) or reference.has(
        "layers.0.Relpos.decay"
    )


def compute(reference: Reference) -> dict[str, Tensor]:
    if reference.has("layers.0.Relpos.decay"):
        return network(reference)
    config = reference.config
    width, heads = config["embed_dim"], config["num_heads"]
    decay = {"initial": config["initial_value"], "span": config["heads_range"]}
    if reference.has("lepe.conv.weight"):
        weights = {f"retention.{key}": t for key, t in reference.weights.items()}
        named = lambda key: str(RMT.renamed(key)).removeprefix("mixer.")  # noqa: E731
        x = reference["input"]
        whole, along = (loaded(Manhattan(width, heads, axes, **decay), weights, named) for axes in (False, True))
        found = {"output_whole": whole(x, None), "output_decomposed": along(x, None)}
        return found | relpos(width // heads, x.shape[1], x.shape[2], decays(heads, decay["initial"], decay["span"]))
    gain = 1.0 if config["layerscale"] else 0.0
    mixer = Manhattan(width, heads, config["retention"] != "whole", **decay)
    block = loaded(RMTBlock(mixer, width, config["ffn_dim"], gain), reference.weights, RMT.renamed)
    return {"output": block(reference["input"])}


def relpos(width: int, rows: int, columns: int, decay: Tensor) -> dict[str, Tensor]:
    """What the authors' code makes of a grid before any layer."""
    cosine, sine = turns(torch.arange(rows * columns).view(rows, columns), width)
    down, across = distance(rows, decay.device), distance(columns, decay.device)
    both = (down[:, None, :, None] + across[None, :, None, :]).flatten(2).flatten(0, 1)
    masks = {"mask_2d": both, "mask_h": down, "mask_w": across}
    made = {"cos": cosine, "sin": sine, "decay": decay, "angle": turns(torch.ones(()), width)[1].asin()}
    made |= {name: decay[:, None, None] * apart for name, apart in masks.items()}
    return {f"relpos.{name}": t for name, t in made.items()}


def network(reference: Reference) -> dict[str, Tensor]:
    config, stages = reference.config, len(reference.config["embed_dims"])
    config.only(reference.name, patch_norm=True)
    config.get("layer_init_values")
    made = RMT(
        config["embed_dims"],
        config["depths"],
        config["num_heads"],
        config["heads_ranges"],
        config["mlp_ratios"],
        config["chunkwise_recurrents"],
        config["init_values"],
        config.get("layerscales", [False] * stages),
        1.0,  # the weights say it
        reference["input"].shape[1],
    )
    loaded(made, reference.weights, RMT.renamed)
    maps, head = made(reference["input"]), reference.under("")
    last = nn.functional.linear(maps[-1].permute(0, 2, 3, 1), head["proj.weight"], head["proj.bias"])
    norm = loaded(nn.BatchNorm2d(last.shape[-1]), reference.under("norm."))
    features = nn.functional.silu(norm(last.permute(0, 3, 1, 2))).flatten(2).mean(2)
    found = {
        "features": features,
        "output": nn.functional.linear(features, head["head.weight"], head["head.bias"]),
        "stage0_in": made.stem(reference["input"]).permute(0, 2, 3, 1),
    }
    for number, own in enumerate(maps):
        after = made.between[number](own) if number < len(made.between) else own
        found[f"stage{number}_out"] = after.permute(0, 2, 3, 1)
    return found
