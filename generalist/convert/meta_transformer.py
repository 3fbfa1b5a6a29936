"""Meta-Transformer's released encoder files -> a shared encoder of this framework (`spec/meta-transformer.md` 1).

    generalist convert meta-transformer Meta-Transformer_base_patch16_encoder.pth --out DIR

The file is a plain sequence of ViT blocks and nothing else: no tokenizer, no positions, no final norm. A CLIP image
tower of open_clip (its `visual.*` or `transformer.*` names) is accepted as well; `stem` takes the image tokenizer from
one: the blocks were trained behind CLIP's stem, and with a fresh one a frozen encoder is poor.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.convert.files import load_tensors
from generalist.convert.report import Origin, Report, fill, positive, real_numbers, save
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.tokenizers_mod.text.text import Text

PREFIXES = re.compile(r"^(?:(?:module|model|encoder|visual|transformer|blocks|resblocks)\.)+")
# timm's names and CLIP's names of a block's tensors -> ours
NAMES = {
    "norm1": "norm1",
    "ln_1": "norm1",
    "attn.qkv": "mixer.qkv",
    "attn.in_proj": "mixer.qkv",
    "attn.proj": "mixer.out",
    "attn.out_proj": "mixer.out",
    "norm2": "norm2",
    "ln_2": "norm2",
    "mlp.fc1": "mlp.up",
    "mlp.c_fc": "mlp.up",
    "mlp.fc2": "mlp.down",
    "mlp.c_proj": "mlp.down",
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEAD = 64  # size of an attention head in both released encoders


def encoder_name(name: str) -> str | None:
    """A tensor's name in a released file -> its name in `Encoder`; None when it is not a block's tensor."""
    match = re.match(r"^(\d+)\.(.+?)[._](weight|bias)$", PREFIXES.sub("", name))
    if match is None or match.group(2) not in NAMES:
        return None
    return f"layers.{match.group(1)}.{NAMES[match.group(2)]}.{match.group(3)}"


def encoder_tensors(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """All block tensors under our names, and the names of the others.

    A file of two towers has blocks under two beginnings of names: those of its picture tower are taken ("visual"), else
    the first's. UserError where one name of ours has two tensors.
    """
    begins: dict[str, dict[str, str]] = {}
    for name in tensors:
        if (ours := encoder_name(name)) is not None:
            match = PREFIXES.match(name)
            own = begins.setdefault(match[0] if match else "", {})
            if ours in own:
                raise UserError(f"meta-transformer: {own[ours]} and {name} are one tensor; give a file with one")
            own[ours] = name
    chosen = next((b for b in begins if "visual" in b), next(iter(begins), ""))
    taken = begins.get(chosen, {})
    used = set(taken.values())
    return {ours: tensors[name] for ours, name in taken.items()}, [name for name in tensors if name not in used]


def sizes(tensors: dict[str, Tensor]) -> tuple[int, int, int]:
    """(layers, width, hidden) of block tensors under our names. UserError when there are none."""
    layers = {int(name.split(".")[1]) for name in tensors}
    up = next((value for name, value in sorted(tensors.items()) if name.endswith(".mlp.up.weight")), None)
    if up is None or layers != set(range(len(layers))):
        raise UserError("meta-transformer: the file holds no transformer blocks numbered from 0; is it the encoder?")
    if up.ndim != 2 or not up.numel():
        raise UserError(f"meta-transformer: the first linear map of a block has shape {tuple(up.shape)}, no matrix's")
    return len(layers), up.shape[1], up.shape[0]


def convert(checkpoint: Path, out: Path, heads: int = 0, stem: str = "", lenient: bool = False) -> Report:
    """Write a model folder with the file's blocks as the shared encoder; options as in `build`."""
    model, processor, report = build(checkpoint, heads, stem, lenient)
    options = {"heads": heads, "stem": stem, "lenient": lenient}
    save(model, processor, report, out, Origin("meta-transformer", checkpoint.resolve(), options))
    return report


def build(
    checkpoint: Path, heads: int = 0, stem: str = "", lenient: bool = False
) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """The model of a file, its processor, and what was done with every tensor.

    heads: 0 = width / 64 as released. stem: an open_clip image tower, ARCH:PRETRAINED or ARCH:FILE, whose patch
    kernel, class token, positions and pre-norm become the image tokenizer, the summary and the embedding norm.
    lenient: keep fresh weights where the file lacks some, and name them.
    UserError: unreadable, missing or misshapen tensors; a stem of another width.
    """
    report = Report("meta-transformer")
    positive(heads=heads)
    tensors, report.unexpected = encoder_tensors(load_tensors(checkpoint)[0])
    real_numbers(tensors, report)
    layers, width, hidden = sizes(tensors)
    if not heads:
        if width % HEAD:
            raise UserError(f"meta-transformer: the file does not say how many heads share width {width}; give --heads")
        heads = width // HEAD
        report.notes.append(f"{heads} attention heads assumed for width {width}: the file does not say (--heads)")
    clip = _stem(stem, report) if stem else None
    image = _image(width, clip, stem)
    modalities = {"summary": {}, "text": {}, "image": image}
    config = GeneralistConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden,
        embedding_norm=clip is not None,
        output_head=False,
        modalities=modalities,
    )
    torch.manual_seed(0)
    model = GeneralistModel(config)
    fill(model.encoder, tensors, report, lenient)
    if clip is not None:
        fill_stem(model, clip)
        report.notes.append(f"image tokenizer, summary and embedding norm from {stem}")
    else:
        report.notes.append("image tokenizer is fresh: give stem=ARCH:PRETRAINED for CLIP's, or tune it")
    report.notes.append("text is fresh: the released model has no text tower in this space")
    report.parameters = sum(p.numel() for p in model.parameters())
    tokenizer = Text().hf_tokenizer()
    return model.eval(), GeneralistProcessor(tokenizer=tokenizer, modalities=modalities), report


def _image(width: int, clip: dict[str, Tensor] | None, stem: str) -> dict[str, Any]:
    """The image tokenizer's settings: the stem's, or the release's. UserError for a stem of another width."""
    patch, size = (14, 224) if width == 1024 else (16, 224)
    if clip is not None:
        wide, _, patch, _ = clip["conv1.weight"].shape
        size = patch * int((len(clip["positional_embedding"]) - 1) ** 0.5)
        if wide != width:
            raise UserError(f"meta-transformer: the stem {stem} is {wide} wide, the encoder {width}")
    return {
        "class": "generalist.tokenizers_mod.vision.video:Picture",
        "size": size,
        "patch": patch,
        "frames": 1,
        "table": "learned",
        "mean": list(CLIP_MEAN),
        "std": list(CLIP_STD),
    }


def _stem(name: str, report: Report) -> dict[str, Tensor]:
    """The four stem tensors of an open_clip image tower."""
    import open_clip

    arch, _, weights = name.partition(":")
    try:
        tower = open_clip.create_model(arch, pretrained=weights or None).visual.state_dict()
    except (RuntimeError, OSError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"meta-transformer: stem {name!r} cannot be made by open_clip ({line})") from error
    keys = ("conv1.weight", "class_embedding", "positional_embedding", "ln_pre.weight", "ln_pre.bias")
    if lacking := [key for key in keys if key not in tower]:
        raise UserError(f"meta-transformer: {name!r} has no {lacking[0]}; give a plain ViT tower such as ViT-B-16:FILE")
    if not weights:
        report.notes.append(f"{name} without weights: its stem is fresh")
    return {key: tower[key] for key in keys}


@torch.no_grad()
def fill_stem(model: GeneralistModel, clip: dict[str, Tensor]) -> None:
    """CLIP's class token and first position are the summary here; its patch kernel has no bias."""
    tokens: Any = model.tokenizers["image"]
    summary: Any = model.tokenizers["summary"]
    norm: Any = model.embedding_norm
    tokens.projection.weight.copy_(clip["conv1.weight"].flatten(1))
    tokens.projection.bias.zero_()
    tokens.temporal.weight.zero_()  # a picture is the only frame
    tokens.spatial.copy_(clip["positional_embedding"][1:])
    summary.token.weight.copy_((clip["class_embedding"] + clip["positional_embedding"][0])[None])
    norm.weight.copy_(clip["ln_pre.weight"])
    norm.bias.copy_(clip["ln_pre.bias"])
