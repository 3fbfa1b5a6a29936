"""Which of open_clip's architectures become one model of two towers, and how far its logits are from the package's.

    python -m scripts.bench_towers --minutes 10 --out scripts/bench_results/towers.json

Random weights, one architecture in memory at a time, the cheapest first. Transformers, timm's ViT and EVA too, are cut
to two layers (their widths, heads, pooling and resolutions stay), other towers of timm are whole. Where a tokenizer
would be fetched, a stand-in of a few words takes its place: rows of ids are random. What memory or time leave no room
for is named as not run. Architectures that the file holds already stay; a second call goes on. Names that are given
are measured anew.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch

from generalist.convert.pairs.build import build
from generalist.convert.pairs.open_clip import Source, pair_of, source_of
from generalist.convert.report import Report
from generalist.data.base.errors import UserError

LAYERS = 2
TOLERANCE = 1e-5  # of the largest logit


def stand_in(folder: Path) -> Path:
    """A tokenizer of four entries."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **names).save_pretrained(folder)
    return folder


def shortened(source: Source) -> Source:
    """The same with two layers in every transformer of the package's own."""
    config = copy.deepcopy(source.config)
    for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        if isinstance(config.get(part, {}).get("layers"), int):
            config[part]["layers"] = min(LAYERS, config[part]["layers"])
    source.config = config
    return source


def shorten_timm() -> None:
    """The same for the towers that open_clip takes from timm and that are made with a number of layers."""
    create = timm.create_model

    def cut(name: str, *args: Any, **settings: Any) -> torch.nn.Module:
        if name.startswith(("vit_", "eva")):
            settings["depth"] = LAYERS
        return create(name, *args, **settings)

    timm.create_model = cut


def parameters(source: Source) -> int:
    """How many a model has, counted without making it; 0 where it is not made so."""
    from generalist.convert.pairs.open_clip import library_model

    try:
        with torch.device("meta"):
            return sum(p.numel() for p in library_model(source).parameters())
    except (UserError, RuntimeError, NotImplementedError):
        return 0


@torch.inference_mode()
def compared(source: Source) -> dict[str, Any]:
    """The largest difference of the logits of two pictures and three texts."""
    report = Report(source.name)
    pair, original = pair_of(source, report)
    model: Any = original
    ours, _, _ = build(pair, report)
    size = pair.towers["image"].processor["size"]
    height, width = (size, size) if isinstance(size, int) else size
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, height, width)
    text = source.config["text_cfg"]
    length, words = text.get("context_length", 77), text.get("vocab_size", 49408)
    ids = torch.randint(1, words - 1, (3, length))
    ids[:, length // 2] = words - 1  # the end token of texts that are read there
    ids[:, length // 2 + 1 :] = 0
    image, texts = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
    expected = image @ texts.T * model.logit_scale.exp()
    if getattr(model, "logit_bias", None) is not None:
        expected = expected + model.logit_bias
    found = ours(pixel_values=pixels, input_ids=ids).logits
    error = float((found - expected).abs().max())
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    return {"state": "works" if error <= limit else "differs", "error": error, "logit": float(expected.abs().max())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time")
    parser.add_argument("--most", type=float, default=700, help="millions of parameters beyond which none is made")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    parser.add_argument("names", nargs="*", help="architectures, all by default")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    shorten_timm()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        words = stand_in(Path(folder))
        queue = []
        for name in args.names or open_clip.list_models():
            fetched = open_clip.get_model_config(name)["text_cfg"]
            needs = fetched.get("hf_tokenizer_name") and not fetched.get("hf_model_name")
            source = shortened(source_of(name, words if needs else None))
            queue.append((parameters(source), name, source))
        queue.sort(key=lambda one: one[:2])
        found = {name: {"state": "not run", "reason": "no time left"} for _, name, _ in queue}
        if args.out and args.out.is_file():
            found |= json.loads(args.out.read_text())["architectures"]
        for count, name, source in queue:
            if not args.names and found[name]["state"] != "not run":
                continue
            if count > args.most * 1e6:
                found[name]["reason"] = f"size: {count / 1e6:,.0f} million parameters"
                continue
            if time.process_time() - began > 60 * args.minutes:
                break
            try:
                found[name] = compared(source)
            except UserError as error:
                found[name] = {"state": "refused", "reason": str(error)}
            gc.collect()
            print(name, found[name], flush=True)
            if args.out:
                args.out.write_text(json.dumps(result_of(found), indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result_of(found)["counts"]))
    return 0


def result_of(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the file holds: how many of each state, and every architecture's."""
    counts = Counter(one["state"] for one in found.values())
    about = {"open_clip": version("open_clip_torch"), "torch": torch.__version__, "layers": LAYERS}
    return {"about": about, "counts": dict(counts), "architectures": dict(sorted(found.items()))}


if __name__ == "__main__":
    raise SystemExit(main())
