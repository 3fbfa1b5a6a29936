"""The starter's weights as the package ships them: bf16, with the recipe, the card, the results and the licences.

    python -m scripts.starter_release RUN DATA [--out generalist/shipped/starter]

RUN: the folder of `generalist train starter`; its model, or that of its newest checkpoint. DATA: what
`scripts.starter_data` wrote. The card's numbers are those of scripts/bench_results/starter.json
(`scripts.starter_table`), so the table is measured after the weights are written and this is run again with --card.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError
from generalist.hf.card import model_card
from generalist.hf.saved import read_model
from generalist.train.checkpoints import checkpoint
from scripts.starter_card import RESULTS, licences, results

SHIPPED = Path(__file__).resolve().parent.parent / "generalist" / "shipped" / "starter"
KEPT = "__init__.py"


def weights_of(run: Path) -> Path:
    """The model folder of a finished run, or of its newest checkpoint. UserError where there is none."""
    if (run / "model" / "config.json").is_file():
        return run / "model"
    return checkpoint.latest(run)[1] / "model"


def write(model_folder: Path, recipe: Path, out: Path) -> int:
    """The folder without its card; how many bytes the weights take."""
    model, processor = read_model(model_folder)
    for old in out.iterdir() if out.is_dir() else ():
        if old.name not in (KEPT, "__pycache__"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    half = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    model.save_pretrained(out, state_dict=half)
    processor.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config["dtype"] = "float32"  # bf16 is how the weights are kept, not how they are computed with
    (out / "config.json").write_text(json.dumps(config, indent=1))
    shutil.copyfile(recipe, out / "recipe.json")
    return (out / "model.safetensors").stat().st_size


def card(folder: Path, data: Path, measured: dict[str, Any]) -> str:
    """README.md of the folder: how it is used, what it reached, what it was trained on and under which licences."""
    model, processor = read_model(folder)
    head = model_card("starter", processor, model.config.zero_shot_scale).partition("\n## Measured results")[0]
    head = re.sub(r'from_pretrained\("\."\)', 'from_pretrained(generalist.path("starter"))', head)
    head = re.sub(r" {3,}#", "  #", head)  # as the formatter has it
    return head + results(measured) + licences((data / "LICENCES.md").read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--card", action="store_true", help="only the card, after the results were measured")
    args = parser.parse_args(argv)
    if not args.card:
        size = write(weights_of(args.run), args.run / "recipe.json", args.out)
        print(f"{args.out}: {size / 1e6:.1f} MB")
    measured = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    (args.out / "README.md").write_text(card(args.out, args.data, measured), encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"starter_release: {error}")
