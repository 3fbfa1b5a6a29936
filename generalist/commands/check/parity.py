"""`generalist parity DIR`: a converted model beside its original again, by the passport in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a model folder that generalist convert wrote")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """0 where all is equal within the tolerance, 1 where not."""
    import json
    from dataclasses import asdict

    from generalist.convert import parity

    found = parity.repeat(args.folder)
    print(json.dumps(asdict(found) | {"equal": found.equal}, indent=1) if args.json else found)
    return 0 if found.equal else 1
