"""Which of timm's families of networks run as a `Backbone`, one member each, random weights.

    python -m scripts.backbone_families --size 128          # a line a family, and how many run

A small member is chosen by the words of its name. Its map ("last") and its vector ("embedding") are found at that
size; a network of up to --most million parameters also takes a picture. Written to scripts/bench_results/families.json
family by family: a second call goes on with those that are missing there. Families that are named are tried anew.
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


MEMBERS = 4  # of a family are tried until one takes the size


def families() -> dict[str, list[str]]:
    """{family: members of it, the smallest by name first}."""

    def size(name: str) -> tuple[int, int]:
        return next((i for i, word in enumerate(WORDS) if word in name), len(WORDS)), len(name)

    known = sorted(_registry._module_to_models.items())
    return {family: sorted(sorted(names), key=size)[:MEMBERS] for family, names in known}


def tried_all(names: list[str], side: int, most: float) -> dict[str, Any]:
    """What came of the first member that takes this size; else of the first."""
    found = [tried(names[0], side, most)]
    for name in names[1:]:
        if "refused" not in found[-1]:
            break
        found.append(tried(name, side, most))
    return found[-1] if "refused" not in found[-1] else found[0]


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
    parser.add_argument("--most", type=float, default=30.0, help="million parameters of a network that is run")
    parser.add_argument("names", nargs="*", help="families to try anew, those that are missing by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = {"size": args.size, "timm": timm.__version__}
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results = kept.get("families", {}) if about.items() <= kept.items() else {}
    for family, names in families().items():
        if family not in results or family in args.names:
            results[family] = tried_all(names, args.size, args.most)
            print(family, json.dumps(results[family]), flush=True)
            RESULTS.write_text(json.dumps(about | {"families": dict(sorted(results.items()))}, indent=1) + "\n")
    run = sum("refused" not in found for found in results.values())
    print(f"{sum(found.get('ran', False) for found in results.values())} families took a picture")
    print(f"{run} of {len(results)} families run at {args.size} pixels")


if __name__ == "__main__":
    main()
