"""Weights of published models as models of this framework: one file a family, found through `KINDS`.

Every converter has `convert(checkpoint, out, **options) -> Report` and writes a model folder that
`GeneralistModel.from_pretrained` and `GeneralistProcessor.from_pretrained` load.
"""

from __future__ import annotations

# kind -> (module, what it reads)
KINDS: dict[str, tuple[str, str]] = {
    "uni-perceiver": (
        "generalist.convert.uni_perceiver.checkpoint",
        "an official Uni-Perceiver checkpoint (torch or DeepSpeed)",
    ),
    "meta-transformer": ("generalist.convert.meta_transformer", "a released Meta-Transformer encoder file"),
    "open-clip": (
        "generalist.convert.open_clip",
        "an open_clip model: ARCH, ARCH:PRETRAINED or ARCH:FILE (--tower text)",
    ),
    "hf": ("generalist.convert.hf", "a folder of a Hugging Face CLIP, SigLIP, ViT, BERT or RoBERTa model"),
    "backbone": ("generalist.convert.backbone", "official weights of a published network, --kind rmt and others"),
}
