"""`generalist search DIR --text "..."`: the nearest items of an index, asked in any modality."""

from __future__ import annotations

import argparse
from pathlib import Path

from generalist.commands.predict import given, input_flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", type=Path, help="a folder that `generalist index` wrote")
    input_flag(parser, "text", "words", "TEXT")
    input_flag(parser, "image", "a picture")
    input_flag(parser, "audio", "a sound")
    input_flag(parser, "", "an input of any modality of the model", "MODALITY=FILE")
    parser.add_argument("--most", type=int, default=10, help="how many are shown (default 10)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.data.base.errors import UserError
    from generalist.hf.predict import load_for_asking, raw_inputs
    from generalist.serve.index import Index, place_of

    inputs = given(args.input)
    if len(inputs) != 1:
        raise UserError('give one input, such as --text "a red car" or --image FILE')
    home, folder, precision = place_of(args.index)
    model, processor = load_for_asking(home)
    index = Index(args.index, model, processor, folder, precision)
    ((modality, raw),) = raw_inputs(processor, inputs).items()
    try:
        found = index.search(modality, raw, max(1, args.most))
    except ImportError as error:
        raise UserError(f"{error}: pip install 'generalist-encoder[serve]'") from error
    if args.json:
        print(json.dumps([{"file": file, "cosine": cosine} for file, cosine in found], indent=1, ensure_ascii=False))
    for file, cosine in [] if args.json else found:
        print(f"{cosine:+.4f}  {folder / file}")
    return 0 if found else 1
