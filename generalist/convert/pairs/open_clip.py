"""Whole models of open_clip: an architecture's name with weights or without, or a folder with open_clip_config.json.

generalist convert open-clip ViT-B-32:openai --out DIR                    weights by open_clip's own name, fetched
generalist convert open-clip ViT-B-16-SigLIP:FILE --tokenizer FOLDER ...  with a tokenizer that open_clip would fetch
generalist convert open-clip FOLDER --out DIR                             settings, weights, tokenizer, as the hub holds
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist.convert.files import load_tensors
from generalist.convert.pairs.build import Pair
from generalist.convert.pairs.tokenizer import Rules, load_tokenizer, text_settings
from generalist.convert.report import Report
from generalist.data.base.errors import UserError, nearest, one_line
from generalist.tokenizers_mod.libraries.weights import BY_TENSOR, refuse_pickles
from generalist.tokenizers_mod.towers.pictures import PictureTower
from generalist.tokenizers_mod.towers.words import TextTower

SETTINGS = "open_clip_config.json"
PICTURES = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
AGREED = PICTURES[1:5]


@dataclass
class Source:
    """What a model is made from. config: its architecture's settings; pictures: settings of the preprocessing that
    differ from the library's usual ones; weights: a file, None for none; tag: the library's own weights; tokenizer: the
    folder of one, None where the library brings or fetches it.
    """

    name: str
    config: dict[str, Any]
    pictures: dict[str, Any]
    weights: Path | None
    tag: str
    tokenizer: Path | None


def source_of(name: str, tokenizer: Path | None = None) -> Source:
    """ARCH[:WEIGHTS] or a folder. UserError: neither, or what it holds cannot be read."""
    import open_clip

    if Path(name).is_dir():
        return _folder(Path(name), tokenizer)
    arch, weights, own = named(name)
    file = Path(weights) if weights and not own else None
    tag = weights if own else ""
    config = copy.deepcopy(open_clip.get_model_config(arch))
    return Source(
        name,
        config,
        _usual(arch, [tag] if tag else open_clip.list_pretrained_tags_by_model(arch)),
        file,
        tag,
        tokenizer,
    )


def named(name: str) -> tuple[str, str, bool]:
    """ARCH[:WEIGHTS] -> the two, and whether the weights are open_clip's own. UserError where there is no such."""
    import open_clip

    arch, _, weights = name.partition(":")
    if arch not in open_clip.list_models():
        raise UserError(f"open_clip has no model {arch!r}; {nearest(arch, open_clip.list_models())}")
    known = open_clip.list_pretrained_tags_by_model(arch)
    if weights and not Path(weights).is_file() and weights not in known:
        raise UserError(f"{arch} has no weights {weights!r} and there is no such file; {nearest(weights, known)}")
    return arch, weights, bool(weights) and not Path(weights).is_file()


def _usual(arch: str, tags: list[str]) -> dict[str, Any]:
    """The preprocessing that all of these weights of an architecture share; the library's usual one where they differ.

    A file's is that of the architecture's published weights: SigLIP's pictures are squashed, whoever trained them on.
    """
    import open_clip

    found = [open_clip.get_pretrained_cfg(arch, tag) for tag in tags]
    shared: dict[str, Any] = {}
    for key in AGREED:
        values = [cfg.get(key) for cfg in found]
        if values and values[0] is not None and all(value == values[0] for value in values):
            shared[key] = values[0]
    return shared


def _folder(folder: Path, tokenizer: Path | None) -> Source:
    """A folder as open_clip saves one. UserError: no settings in it, or its weights are a pickle."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        config, pictures = settings["model_cfg"], settings.get("preprocess_cfg", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no readable {SETTINGS}; give an open_clip folder, or convert hf") from error
    files = sorted(folder.glob("*.safetensors"))
    refuse_pickles(folder, way=BY_TENSOR)
    named = [f for f in files if f.name in ("open_clip_model.safetensors", "model.safetensors")]
    weights = next(iter(named or files), None)
    own = folder if (folder / "tokenizer_config.json").is_file() else None
    return Source(str(folder), config, pictures, weights, "", tokenizer or own)


def pair_of(source: Source, report: Report, lenient: bool = False) -> tuple[Pair, nn.Module]:
    """The pair, and the library's own model that it was made of. UserError: it cannot be made, or the file misfits."""
    words = words_of(source)
    model = library_model(source)
    if source.weights is not None:
        load_weights(model, source.weights, source.name, report, lenient)
    elif not source.tag:
        report.notes.append("no weights were given: all are fresh")
    config, state = source.config, model.state_dict()
    size, gelu = config["embed_dim"], config.get("quick_gelu", False)
    text_cfg = config["text_cfg"]
    shared: dict[str, Any] = {"library": "open_clip", "size": size}
    image = PictureTower(
        **shared,
        config={"embed_dim": size, "vision_cfg": config["vision_cfg"], "quick_gelu": gelu},
        processor=preprocessing(model, source),
    )
    settings = {"embed_dim": size, "text_cfg": text_cfg, "quick_gelu": gelu}
    if text_cfg.get("hf_model_name"):
        settings["hf_config"] = model.text.config.to_dict()  # type: ignore[union-attr]
    text = TextTower(**shared, config=settings, **words)
    tensors = {"image": _under(state, "visual."), "text": _text_of(state)}
    if "multimodal_cfg" in config:
        report.notes.append("the decoder of captions has no place here and is left out")
    bias = state.get("logit_bias")
    pair = Pair({"image": image, "text": text}, tensors, state["logit_scale"], bias, pairwise=bias is not None)
    return pair, model


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"tower.{key.removeprefix(prefix)}": value for key, value in state.items() if key.startswith(prefix)}


def _text_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of some models the text tower is a part, others hold its parts themselves."""
    if any(key.startswith("text.") for key in state):
        return _under(state, "text.")
    others = ("visual.", "logit_", "text_decoder.")
    return {f"tower.{key}": value for key, value in state.items() if not key.startswith(others)}


def library_model(source: Source) -> Any:
    """open_clip's own model, with weights where they are its own. UserError where something is to be fetched."""
    import open_clip
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    if source.tag:
        _reachable(source)
        try:
            return open_clip.create_model(source.name.partition(":")[0], pretrained=source.tag).eval()
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"open_clip cannot load {source.name} ({one_line(error)[:120]}); give ARCH:FILE") from error
    config = copy.deepcopy(source.config)
    text, custom = config["text_cfg"], config.pop("custom_text", False)
    config["vision_cfg"]["timm_model_pretrained"] = False
    if name := text.get("hf_model_name"):
        text |= {"hf_model_name": str(source.tokenizer), "hf_model_pretrained": False}
    kind = CoCa if "multimodal_cfg" in config else CustomTextCLIP if custom or name else CLIP
    try:
        return kind(**config).eval()
    except Exception as error:  # whatever the libraries below raise for settings that they refuse
        raise UserError(f"open_clip cannot make {source.name}: {one_line(error)}") from error


def _reachable(source: Source) -> None:
    """UserError at once where weights are to be fetched and there is no network."""
    from generalist.convert.pairs.network import online

    if not online():
        raise UserError(
            f"{source.name}: no network to fetch these weights through; fetch them elsewhere, give ARCH:FILE"
        )


def load_weights(model: Any, file: Path, name: str, report: Report, lenient: bool) -> None:
    """Put a file's tensors into open_clip's model as the library does. UserError naming the first that misfits."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    tensors = {key.removeprefix("module."): value for key, value in load_tensors(file)[0].items()}
    for key in ("input_resolution", "context_length", "vocab_size", "attn_mask"):
        tensors.pop(key, None)
    tensors = convert_state_dict(model, tensors)
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    for key in ("logit_scale", "logit_bias"):
        if key in tensors and getattr(model, key, None) is not None:
            tensors[key] = tensors[key].reshape(getattr(model, key).shape)
    if model.logit_bias is not None and "logit_bias" not in tensors:
        tensors["logit_bias"] = torch.zeros_like(model.logit_scale)
        report.notes.append("the file has no logit bias: 0, as open_clip takes it")
    tensors.pop("text.transformer.embeddings.position_ids", None)
    state = model.state_dict()
    lacking, others = [k for k in state if k not in tensors], [k for k in tensors if k not in state]
    if (lacking or others) and not lenient:
        word = f"it lacks {lacking[0]}" if lacking else f"it has {others[0]} besides"
        counts = f"({len(lacking)} missing, {len(others)} unexpected)"
        raise UserError(f"{file} does not fit {name}: {word} {counts}; --lenient goes on without")
    for key, value in tensors.items():
        resized = key.endswith("positional_embedding") and value.shape[1:] == state[key].shape[1:]
        if key in state and value.shape != state[key].shape and not resized:
            shapes = f"{tuple(value.shape)} instead of {tuple(state[key].shape)}"
            raise UserError(f"{file} does not fit {name}: {key} is {shapes}")
    resize_pos_embed(tensors, model)
    resize_text_pos_embed(tensors, model)
    report.missing += lacking
    report.unexpected += others
    model.load_state_dict(tensors, strict=False)


def preprocessing(model: Any, source: Source) -> dict[str, Any]:
    """What open_clip does to a picture for this model."""
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    cfg = merge_preprocess_dict(asdict(PreprocessCfg()), source.pictures)
    if (own := getattr(model.visual, "image_size", None)) is not None:
        cfg["size"] = own
    return {key: list(cfg[key]) if isinstance(cfg[key], tuple) else cfg[key] for key in PICTURES}


def words_of(source: Source) -> dict[str, Any]:
    """Settings of the text tower's rows, as `open_clip.get_tokenizer` makes them for this model."""
    text = source.config["text_cfg"]
    length = int(text.get("context_length", 77))
    kwargs = dict(text.get("tokenizer_kwargs") or {})
    if not (name := text.get("hf_tokenizer_name")):
        if set(kwargs) - {"clean"}:
            raise UserError(f"{source.name}: a tokenizer with {sorted(kwargs)[0]!r} has no form here")
        return {"tokenizer": "clip", "length": length, "clean": kwargs.get("clean", "lower")}
    tower = text.get("hf_model_name")
    if source.tokenizer is None or (tower and not (source.tokenizer / "config.json").is_file()):
        what = f"text tower of {source.name} is {tower}" if tower else f"tokenizer of {source.name} is {name}"
        files = "config.json and tokenizer.json" if tower else "tokenizer.json"
        raise UserError(f"the {what}, which open_clip fetches; give a folder with its {files}: --tokenizer FOLDER")
    tokenizer = load_tokenizer(source.tokenizer)
    rules = Rules(
        length=length,
        clean=kwargs.get("clean", "whitespace"),
        clips=text.get("tokenizer_mode") == "clips",
        strip=bool(kwargs.get("strip_sep_token")),
    )
    return text_settings(tokenizer, rules, source.name)
