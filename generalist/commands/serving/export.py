"""`generalist export MODEL onnx|torch-export|torchao --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the folder of a run or of a model, or a name that comes with it")
    parser.add_argument("format", help="onnx, torch-export or torchao (int8 weights in a model folder)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--modality", nargs="+", metavar="NAME", help="which (default: texts, pictures and sounds)")
    parser.add_argument("--side", default="input", choices=("input", "candidate"), help="what the features are of")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.convert.export import check_needs, export, to_torchao
    from generalist.hf.predict import load_model
    from generalist.shipped import model_folder

    check_needs(args.format)
    if args.format == "torchao":
        told = to_torchao(model_folder(args.model) or args.model, args.out)
        print(json.dumps(told, indent=1) if args.json else f"{args.out}: {told['share']:.0%} of the bytes")
        return 0
    model, processor = load_model(args.model)
    found = export(model, processor, args.format, args.out, args.modality, args.side)
    if args.json:
        print(json.dumps({name: vars(program) for name, program in found.items()}, indent=1))
        return 0
    for name, program in found.items():
        inputs = ", ".join(program.inputs)
        print(f"{args.out / program.file}: {name} ({inputs}; sizes {program.sizes}), within {program.difference:.0e}")
    return 0
