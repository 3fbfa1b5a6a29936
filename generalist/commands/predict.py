"""`generalist predict RUN --image FILE --candidates "a" "b"`: one input, ranked candidates."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

INPUTS = ("image", "text", "audio", "table", "series", "points")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("--image", metavar="FILE", help="a picture")
    parser.add_argument("--text", metavar="TEXT", help="a text, or a file that holds one")
    parser.add_argument("--audio", metavar="FILE", help="a wav or flac file")
    parser.add_argument("--table", metavar="FILE", help="a .csv or .json file; its first row is taken")
    parser.add_argument("--series", metavar="FILE", help="a .csv, .npy or .parquet file of one series")
    parser.add_argument("--points", metavar="FILE", help="a .npy, .csv or .xyz file of points")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="MODALITY=FILE",
        help="an input of any modality of the model",
    )
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="two or more answers to choose among, in words")
    parser.add_argument("--task", help="answer as this task of the run: its candidates, its scale")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from data.errors import UserError
    from generalist.predict import predict

    inputs: dict[str, Any] = {name: getattr(args, name) for name in INPUTS if getattr(args, name) is not None}
    for word in args.input:
        modality, sign, value = word.partition("=")
        if not sign:
            raise UserError(f"--input {word!r} is not MODALITY=FILE (example: --input points=chair.npy)")
        inputs[modality] = value
    answer = predict(args.run, inputs, args.candidates, args.task)
    if args.json:
        print(json.dumps(answer, indent=1))
    else:
        for name, value in answer["answers"]:
            print(f"{value:.4f}  {name}" if isinstance(value, float) else f"{name}  {value}")
    return 0
