"""`generalist predict RUN --image FILE --candidates "a" "b"`: one input, ranked candidates."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("data", nargs="?", help="a table's file or a folder: every row or file is answered (see --out)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="with DATA: a CSV of all answers (default: printed)")
    parser.add_argument("--model-only", action="store_true", help="with DATA: without the ordinary method's help")
    input_flag(parser, "image", "a picture")
    input_flag(parser, "text", "a text, or a file that holds one", "TEXT")
    input_flag(parser, "audio", "a wav or flac file")
    input_flag(parser, "table", "a .csv or .json file; its first row is taken")
    input_flag(parser, "series", "a .csv, .npy or .parquet file of one series")
    input_flag(parser, "points", "a .npy, .csv or .xyz file of points")
    input_flag(parser, "", "an input of any modality of the model", "MODALITY=FILE")
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="two or more answers to choose among, in words")
    parser.add_argument(
        "--detect",
        nargs="*",
        metavar="NAME",
        help="find these in --image and name them; alone: what the model was taught",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.3, help="smallest probability of a detection (default 0.3)"
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FILE", help="where the drawn detections go (default: beside --image)"
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.7,
        help="of boxes of one name that overlap more (IoU) the likeliest stays (default 0.7; 1 keeps all)",
    )
    parser.add_argument("--enlarge", type=int, default=1, metavar="TIMES", help="draw small pictures so much larger")
    parser.add_argument("--task", help="answer as this task of the run: its candidates, its scale")
    precision_flag(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def precision_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="in which the model answers (default fp32; bf16 is faster where the machine has matrix units for it)",
    )


def input_flag(parser: argparse.ArgumentParser, modality: str, told: str, value: str = "FILE") -> None:
    """--MODALITY VALUE, another word for --input MODALITY=VALUE; "" is --input itself."""
    words = (lambda word: f"{modality}={word}") if modality else str
    flag = f"--{modality or 'input'}"
    parser.add_argument(flag, dest="input", action="append", default=[], type=words, metavar=value, help=told)


def given(words: list[str]) -> dict[str, str]:
    """{modality: word} of all inputs. UserError for one that names no modality."""
    from generalist.data.base.errors import UserError

    inputs = {}
    for word in words:
        modality, sign, value = word.partition("=")
        if not sign:
            raise UserError(f"--input {word!r} is not MODALITY=FILE (example: --input points=chair.npy)")
        inputs[modality] = value
    return inputs


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.hf.predict import predict

    if args.data is not None:
        return batch(args)
    inputs = given(args.input)
    if args.detect is not None:
        return detections(args, inputs.get("image"))
    answer = predict(args.run, inputs, args.candidates, args.task, args.precision)
    if args.json:
        print(json.dumps(answer, indent=1))
    else:
        for name, value in answer["answers"]:
            print(f"{value:.4f}  {name}" if isinstance(value, float) else f"{name}  {value}")
    return 0


def batch(args: argparse.Namespace) -> int:
    """Every row of a file, or every file of a folder, answered by the run's task."""
    from generalist.fitting.predict import predict_file

    given = args.run, args.data, args.out, args.task or "", args.model_only, args.precision
    rows, lost = predict_file(*given)
    if args.out is not None:
        unread = f", {lost} of them cannot be read (column error)" if lost else ""
        print(f"{rows} rows answered{unread}: {args.out}")
    return 0


def detections(args: argparse.Namespace, file: str | None) -> int:
    """Print what was found in the picture and draw it."""
    import json

    from generalist.data.base.errors import UserError
    from generalist.hf.detection import detect, draw
    from generalist.hf.predict import load_model

    if file is None:
        raise UserError("--detect needs a picture; add --image FILE")
    if not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold {args.threshold} is no probability; give a number from 0 to 1")
    if not 0 <= args.overlap <= 1:
        raise UserError(f"--overlap {args.overlap} is no share; give a number from 0 to 1")
    if not 1 <= args.enlarge <= 16:
        raise UserError(f"--enlarge {args.enlarge}: give a whole number from 1 to 16")
    picture = Path(file)
    if not picture.is_file():
        raise UserError(f"--image: no file {file}; check the path")
    names = args.detect or None
    found = detect(*load_model(args.run), str(picture), names, args.threshold, args.task, args.overlap)
    drawn = args.draw or picture.with_name(f"{picture.stem}_detected.png")
    draw(str(picture), found, names, args.enlarge).save(drawn)
    for hit in found:
        hit.pop("mask", None)
    if args.json:
        print(json.dumps({"detections": found, "drawn": str(drawn)}, indent=1))
        return 0
    for hit in found:
        box = " ".join(f"{value:.0f}" for value in hit["box"].values())
        print(f"{hit['score']:.4f}  {hit['label']}  {box}")
    print(f"{len(found)} found; drawn in {drawn}")
    return 0
