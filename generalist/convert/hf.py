"""Encoders of Hugging Face folders as initialisation: CLIP, SigLIP and ViT pictures; BERT and RoBERTa texts.

    generalist convert hf FOLDER --out DIR

The folder holds config.json and model.safetensors; nothing in it is run, and pickles (.bin) are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.nn.functional import linear

from generalist.convert import sentence
from generalist.convert.files import load_folder
from generalist.convert.pairs import transformers as pairs
from generalist.convert.pairs.build import build as build_pair
from generalist.convert.report import Origin, Report, real_numbers, save
from generalist.convert.towers import clip_text as clip_texts
from generalist.convert.towers import vit
from generalist.convert.towers.bert import bert, roberta
from generalist.convert.towers.named import Built, Named, layers, pair, spec_of
from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name

OPTIONS = ("tower", "lenient")
TOWERS = ("both", "image", "text")


def convert(checkpoint: Path, out: Path, tower: str = "both", lenient: bool = False) -> Report:
    """A Hugging Face model folder as a model folder of this framework.

    tower: of a model with two, "both" as modalities (`generalist.convert.pairs`), or "image" or "text" as the shared
    encoder. lenient: keep fresh weights where the file lacks some, and name them.
    """
    if tower not in TOWERS:
        raise UserError(f"tower {tower!r}; {nearest(tower, TOWERS)}")
    model, processor, report = build(checkpoint, tower, lenient)
    given = {"tower": tower, "lenient": True} if lenient else {"tower": tower}
    save(model, processor, report, out, Origin("hf", checkpoint.resolve(), given))
    return report


def build(folder: Path, tower: str = "image", lenient: bool = False) -> Built:
    """The encoder of a folder, by its model type; of a model with two towers both or the named one."""
    behind = sentence.read(folder)
    folder = behind.folder
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no readable config.json; give a Hugging Face model folder") from error
    kind = config.get("model_type", "") if isinstance(config, dict) else ""
    if kind in pairs.KINDS and tower == "both":
        report = Report(f"Hugging Face {kind}")
        return build_pair(pairs.pair_of(folder, config, report)[0], report)
    if kind not in READERS:
        known = dict.fromkeys([*READERS, *(pairs.KINDS if tower == "both" else ())])
        raise UserError(f"models of type {kind!r} do not convert; {nearest(kind, known)}")
    reader, anchor = READERS[kind]
    if tower == "text" and reader is not clip_text:
        if reader is not clip:
            raise UserError(f"{kind} models have no text tower that converts; leave --tower out")
        reader, anchor = clip_text, TOKENS
    tensors = Named.of(load_folder(folder), anchor, lenient)
    if behind.settings and anchor != WORDS:
        raise UserError(f"pooling of a {kind} model has no form here; take its text or picture tower alone")
    tensors.behind = behind
    try:
        model, processor, report = reader(folder, config, tensors)
    except UserError:
        raise
    except (
        KeyError,
        TypeError,
        RuntimeError,
        IndexError,
        ValueError,
    ) as error:  # a config.json or tensors of another kind
        line = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise UserError(f"{folder}: config.json and weights do not make a {kind} model ({line})") from error
    real_numbers({name: value for name, value in tensors.items() if id(value) in tensors.read}, report)
    report.unused += tensors.left()
    return model, processor, report


CLIP_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "mixer.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
CLIP_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def clip(folder: Path, config: dict[str, Any], t: Named) -> Built:
    """The vision tower of a CLIP model, or a vision model alone; its projection where there is one."""
    settings = _vision_defaults("CLIPVisionConfig") | config.get("vision_config", config)
    patch = t["embeddings.patch_embedding.weight"]
    positions = t["embeddings.position_embedding.weight"]
    ours = vit.stem(patch, None, positions, t["embeddings.class_embedding"])
    ours |= layers(t, "encoder.layers.", CLIP_QKV, CLIP_BLOCK)
    ours |= pair(t, "pre_layrnorm", "embedding_norm")
    notes: tuple[str, ...] = ()
    if "visual_projection.weight" in t:
        ours |= pair(t, "post_layernorm", "head.norm") | {"head.projection.weight": t["visual_projection.weight"]}
    else:
        notes = ("the file has no projection: the features are the encoder's, without its last norm",)
    mean, std = _pixels(folder)
    return vit.build(
        "Hugging Face CLIP",
        ours,
        spec_of(settings),
        picture=vit.picture(patch, False, len(positions) - 1, mean, std),
        notes=notes,
        families=("embedding_norm", "head.norm") if "visual_projection.weight" in t else ("embedding_norm",),
        lenient=t.lenient,
    )


def clip_text(folder: Path, config: dict[str, Any], t: Named) -> Built:
    """The text tower of a CLIP model, or a text model alone; its projection where there is one."""
    settings = _vision_defaults("CLIPTextConfig") | config.get("text_config", config)
    tables = (t[f"embeddings.{name}_embedding.weight"] for name in ("token", "position"))
    ours, text = clip_texts.stem(*tables)
    ours |= layers(t, "encoder.layers.", CLIP_QKV, CLIP_BLOCK)
    if "text_projection.weight" in t:
        ours |= pair(t, "final_layer_norm", "head.norm") | {"head.projection.weight": t["text_projection.weight"]}
    else:
        ours |= pair(t, "final_layer_norm", "encoder.norm")
    last = "head.norm" if "text_projection.weight" in t else "encoder.norm"
    spec = spec_of(settings)
    return clip_texts.build("Hugging Face CLIP text", ours, text, spec, families=(last,), lenient=t.lenient)


def siglip(folder: Path, config: dict[str, Any], t: Named) -> Built:
    """The vision tower of a SigLIP model with its attention pooling, whose query is one projected constant."""
    settings = _vision_defaults("SiglipVisionConfig") | config.get("vision_config", config)
    patch, bias = (t[f"embeddings.patch_embedding.{end}"] for end in ("weight", "bias"))
    positions = t["embeddings.position_embedding.weight"]
    ours = vit.stem(patch, bias, positions, None)
    ours |= layers(t, "encoder.layers.", CLIP_QKV, CLIP_BLOCK) | pair(t, "post_layernorm", "encoder.norm")
    spec = spec_of(settings)
    if "head.probe" in t:
        sizes = [len(patch), 2 * len(patch)]
        (q, kv), (q_bias, kv_bias) = (t[f"head.attention.in_proj_{e}"].split(sizes) for e in ("weight", "bias"))
        ours |= {"pooling.query": linear(t["head.probe"].reshape(1, -1), q, q_bias)}
        ours |= {"pooling.kv.weight": kv, "pooling.kv.bias": kv_bias} | pair(
            t, "head.attention.out_proj", "pooling.out"
        )
        ours |= pair(t, "head.layernorm", "pooling.norm2")
        ours |= pair(t, "head.mlp.fc1", "pooling.up") | pair(t, "head.mlp.fc2", "pooling.down")
        spec.readout = {"kind": "attention", "heads": spec.heads, "hidden": len(t["head.mlp.fc1.bias"])}
    return vit.build(
        "Hugging Face SigLIP",
        ours,
        spec,
        picture=vit.picture(patch, True, len(positions), (0.5,) * 3, (0.5,) * 3),
        hidden_summary=True,
        fresh=("tokenizers.summary.",),
        notes=() if spec.pooler else ("the file has no pooling: tokens are equal, the summary is to be trained",),
        families=("encoder.norm",),
        lenient=t.lenient,
    )


VIT_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "mixer.out",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
}
SELF_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")


def plain_vit(folder: Path, config: dict[str, Any], t: Named) -> Built:
    """A ViT up to its last norm; the feature is its class token. The pooler and the classifier are left out."""
    settings = _vision_defaults("ViTConfig") | config
    projection = "embeddings.patch_embeddings.projection"
    patch, bias = t[f"{projection}.weight"], (t[f"{projection}.bias"] if f"{projection}.bias" in t else None)  # noqa: SIM401
    positions = t["embeddings.position_embeddings"][0]
    ours = vit.stem(patch, bias, positions, t["embeddings.cls_token"].reshape(-1))
    newer = any(k.startswith("layers.0.") for k in t)
    if newer:
        ours |= layers(t, "layers.", NEW_QKV, NEW_VIT_BLOCK)
    else:
        ours |= layers(t, "encoder.layer.", SELF_QKV, VIT_BLOCK)
    ours |= pair(t, "layernorm", "encoder.norm")
    mean, std = _pixels(folder, (0.5,) * 3, (0.5,) * 3)
    return vit.build(
        "Hugging Face ViT",
        ours,
        spec_of(settings),
        picture=vit.picture(patch, bias is not None, len(positions) - 1, mean, std),
        families=("encoder.norm",),
        lenient=t.lenient,
    )


NEW_VIT_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "mixer.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
NEW_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def _vision_defaults(name: str) -> dict[str, Any]:
    """The library's defaults, which a config.json may leave out."""
    return by_name(f"transformers:{name}")().to_dict()


def _pixels(folder: Path, mean: Any = None, std: Any = None) -> tuple[Any, Any]:
    """Mean and standard deviation of the folder's preprocessor; CLIP's own where it says nothing."""
    mean, std = mean or (0.48145466, 0.4578275, 0.40821073), std or (0.26862954, 0.26130258, 0.27577711)
    path = folder / "preprocessor_config.json"
    if path.is_file():
        found = json.loads(path.read_text())
        mean, std = found.get("image_mean") or mean, found.get("image_std") or std
    return mean, std


TOKENS = "embeddings.token_embedding.weight"
PATCHES, WORDS = "embeddings.patch_embedding.weight", "embeddings.word_embeddings.weight"
# model type -> (reader, the name that every such file has, behind a prefix or not)
READERS: dict[str, tuple[Callable[[Path, dict[str, Any], Named], Built], str]] = {
    "clip": (clip, PATCHES),
    "clip_vision_model": (clip, PATCHES),
    "clip_text_model": (clip_text, TOKENS),
    "siglip": (siglip, PATCHES),
    "siglip_vision_model": (siglip, PATCHES),
    "vit": (plain_vit, "embeddings.cls_token"),
    "bert": (bert, WORDS),
    "roberta": (roberta, WORDS),
    "xlm-roberta": (roberta, WORDS),
}
