"""`generalist plan RECIPE [key=value ...] --gpus N --gpu KIND`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name, a .py file or a recipe.json")
    parser.add_argument("keys", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--gpus", type=int, default=8, help="how many (default 8)")
    parser.add_argument("--gpu", default="h100", help="a100, h100, h200 or b200")
    parser.add_argument("--cores", type=int, default=8, help="loader cores a GPU (default 8)")
    parser.add_argument("--scaling", action="store_true", help="also the simulated weak scaling up to --gpus")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.recipe.keys import override
    from generalist.recipe.load import load_recipe
    from generalist.train.plan import plan, table, weak_scaling

    recipe = load_recipe(args.recipe)
    override(recipe, *args.keys)
    recipe.check()
    result = plan(recipe, args.gpus, args.gpu, args.cores)
    if args.scaling:
        counts = [2**i for i in range(args.gpus.bit_length()) if 2**i <= args.gpus]
        result["weak_scaling"] = weak_scaling(recipe, args.gpu, counts)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(table(result))
    for line in result.get("weak_scaling", []):
        low, high = line["efficiency"]
        print(f"weak scaling, simulated: {line['gpus']:5d} GPUs  {low:.1%} (nothing hidden) to {high:.1%} (all hidden)")
    return 0
