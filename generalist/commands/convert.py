"""`generalist convert KIND CHECKPOINT --out DIR`: a published model's weights as a model folder, strictly checked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

OF_OPEN_CLIP = "hf-hub:"  # what open_clip calls the hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from generalist.convert import KINDS

    about = "; ".join(f"{kind}: {words}" for kind, (_, words) in KINDS.items())
    parser.add_argument("kind", help=about)
    parser.add_argument("checkpoint", help="a checkpoint file, a model folder, hub:NAME, or the name of a model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model to write (a file on the way back)")
    parser.add_argument("--lenient", action="store_true", help="keep fresh weights where the file lacks some")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--heads", type=int, help="attention heads, where the file does not say")
    parser.add_argument("--size", type=_size, help="pixels a side, or HEIGHTxWIDTH: resized positions")
    parser.add_argument("--frames", type=int, help="frames a clip, where positions are to be resized")
    parser.add_argument("--spatial", help="how positions are resized: formula or interpolate")
    parser.add_argument("--vision-type", help="the vision type row: auto, fold or ignore")
    parser.add_argument("--head-scale", help="logit scale that a prompt-tuned linear head belongs to")
    parser.add_argument("--tower", help="of a model with two: both (the default) as modalities, or image or text alone")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer that a library would fetch")
    parser.add_argument("--end-id", type=int, help="id of <|endoftext|> in a vocabulary that is not the official one")
    parser.add_argument("--spe-id", type=int, help="id of <|spe|> likewise")
    parser.add_argument("--kind", dest="network", help="of a backbone: which network the file is of")
    parser.add_argument("--settings", help="of a backbone: what its file does not show, as JSON")
    parser.add_argument("--dialect", help="on the way back to an official file: torch or deepspeed")


def _size(text: str) -> int | list[int]:
    sides = [int(side) for side in text.lower().split("x")]
    return sides[0] if len(sides) == 1 else sides


def run(args: argparse.Namespace) -> int:
    import importlib
    import inspect
    import json
    from dataclasses import asdict

    from generalist.convert import KINDS
    from generalist.data.base.errors import UserError, nearest
    from generalist.tokenizers_mod.libraries.weights import HUB, resolve

    if args.kind not in KINDS:
        raise UserError(f"unknown kind {args.kind!r}; {nearest(args.kind, KINDS)}")
    module = importlib.import_module(KINDS[args.kind][0])
    names = "heads size frames spatial vision_type head_scale dialect tower end_id spe_id tokenizer network settings"
    options: dict[str, Any] = {name: vars(args)[name] for name in names.split() if vars(args)[name] is not None}
    if args.lenient:
        options["lenient"] = True
    taken = vars(module).get("OPTIONS", tuple(inspect.signature(module.convert).parameters))
    if wrong := [name for name in options if name not in taken]:
        raise UserError(f"--{wrong[0].replace('_', '-')} does not apply to {args.kind}")
    name = args.checkpoint.removeprefix("hf-") if args.checkpoint.startswith(OF_OPEN_CLIP) else args.checkpoint
    place = resolve(name, "convert") if name.startswith(HUB) else Path(name)
    report = module.convert(place, args.out, **options)
    print(json.dumps(asdict(report), indent=1) if args.json else f"{report}\nwritten to {args.out}")
    return 0
