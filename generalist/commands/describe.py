"""`generalist describe RUN --image FILE`: a caption, written word by word."""

from __future__ import annotations

import argparse
from pathlib import Path

from generalist.commands.predict import given, input_flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run's folder, or a model folder")
    input_flag(parser, "image", "a picture")
    input_flag(parser, "video", "a clip")
    input_flag(parser, "", "what is described, of any modality of the model", "MODALITY=FILE")
    parser.add_argument("--task", help="write as this task of the run (needed where several write)")
    parser.add_argument("--beam", type=int, default=2, help="beams kept; with --sample captions drawn (default 2)")
    parser.add_argument("--steps", type=int, default=21, help="most sub-words, the end among them (default 21)")
    parser.add_argument("--length-penalty", type=float, default=0.0, help="rank by score / (words + 1)^p (default 0)")
    parser.add_argument("--sample", action="store_true", help="draw captions instead of searching the likeliest")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the drawing (default 1)")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest words that hold this much")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json
    import sys

    from generalist.hf.predict import captions, config_of
    from generalist.nn.mixers.table import kept_line, kept_while_writing

    options = {name: vars(args)[name] for name in ("beam", "steps", "length_penalty", "sample", "temperature")}
    found = captions(args.run, given(args.input), args.task, seed=args.seed, top_p=args.top_p, **options)
    kept = kept_while_writing(config_of(args.run))
    if args.json:
        print(json.dumps({"captions": found, "kept_while_writing": kept}, indent=1))
    else:
        print(kept_line(kept), file=sys.stderr)
        for text, score in found:
            print(f"{score:9.3f}  {text}")
    return 0
