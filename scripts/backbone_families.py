"""Which of timm's families of networks run as a `Backbone`, one member each, random weights.

    python -m scripts.backbone_families --size 128          # a line a family, and how many run

A small member is chosen by the words of its name. Its map ("last") and its vector ("embedding") are found at that
size; a network of up to --most million parameters also takes a picture. Written to scripts/bench_results/families.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import _registry

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.pretrained.backbone import Backbone

RESULTS = Path(__file__).parent / "bench_results" / "families.json"
# words of names, the smallest networks first
WORDS = ["test_", "atto", "femto", "pico", "nano", "zepto", "xxs", "mini", "_xs", "tiny", "_t", "_s", "small", "050"]
WORDS += ["b0", "0", "base", "_b", "medium", "m", "18", "26"]


def families() -> dict[str, str]:
    """{family: its member}."""

    def size(name: str) -> tuple[int, int]:
        return next((i for i, word in enumerate(WORDS) if word in name), len(WORDS)), len(name)

    return {family: min(sorted(names), key=size) for family, names in sorted(_registry._module_to_models.items())}


def tried(name: str, side: int, most: float) -> dict[str, Any]:
    """What came of it: the map's shape and the vector's width, or why it was refused."""
    try:
        last = Backbone(backbone=name, size=side)
        vector = Backbone(backbone=name, size=side, maps="embedding")
        found = {"network": name, "map": last.settings()["shapes"][0], "vector": vector.settings()["shapes"][0][2]}
        with torch.device("meta"):
            million = sum(p.numel() for p in timm.create_model(name).parameters()) / 1e6
        if million <= most:
            span = last.span(torch.rand(3, side, side))
            with torch.no_grad():
                out = last.build(16).eval()(span.data)
            if out.shape != (span.length, 16) or not bool(out.isfinite().all()):
                return {"network": name, "refused": f"tokens {tuple(out.shape)}, not finite or not {span.length}"}
        return found | {"ran": million <= most}
    except UserError as error:
        return {"network": name, "refused": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--most", type=float, default=30.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for family, name in families().items():
        results[family] = tried(name, args.size, args.most)
        print(family, json.dumps(results[family]), flush=True)
    run = sum("refused" not in found for found in results.values())
    print(f"{run} of {len(results)} families run at {args.size} pixels")
    RESULTS.write_text(json.dumps({"size": args.size, "timm": timm.__version__, "families": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
