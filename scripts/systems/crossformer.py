"""CrossFormer and CrossFormer++: the stem, every block and stage, the position bias of the first block, the logits."""

from __future__ import annotations

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
    for name, only in (("group_type", "constant"), ("pad_type", 0), ("use_cpe", False), ("adaptive_interval", False)):
        if config.get(name, only) != only:
            raise UserError(f"{reference.name}: {name}={config[name]} is not built; the published models have {only}")
    ratios = config.get("mlp_ratio", 4.0)
    stages = len(config["depths"])
    made = loaded(
        CrossFormer(
            config["embed_dim"],
            config["depths"],
            config["num_heads"],
            config["group_size"],
            config["crs_interval"],
            ratios if isinstance(ratios, list) else [ratios] * stages,
            config["patch_size"],
            config["merge_size"],
            config.get("use_acl", False),
            config.get("in_chans", 3),
        ),
        reference.weights,
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
