"""`generalist resume-check RUN`: proves the newest checkpoint readable, tensor by tensor."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--all", action="store_true", help="every checkpoint, not the newest alone")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.hf.model import GeneralistModel
    from generalist.recipe.json import from_json
    from generalist.train.checkpoints.checkpoint import folders, latest, verify

    held = folders(args.run) or [latest(args.run)]
    found = []
    for step, folder in held if args.all else held[-1:]:
        about = verify(folder, args.trust)
        recipe = from_json(json.loads((folder / "recipe.json").read_text()))
        model = GeneralistModel.from_pretrained(folder / "model")
        found.append({"step": step, "recipe": recipe.name, "parameters": model.num_parameters(), **about})
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for line in found:
        print(
            f"step {line['step']}: {line['files']} files, {line['tensors']} tensors, "
            f"{line['numbers']} numbers, all finite; "
            f"model of {line['parameters']} parameters loads; written by {line['engine']} (ZeRO {line['stage']}, "
            f"{line['world']} process{'es' if line['world'] > 1 else ''})"
        )
    return 0
