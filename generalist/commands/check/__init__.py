"""`generalist check modality|task|mixer FILE.py`: whether one's own keeps what the rest of the project relies on."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generalist.commands.check.lines import Line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    named = "a name of the table, or FILE.py[:Class]"
    for kind, about in (("modality", named), ("task", "FILE.py[:Class]"), ("mixer", named)):
        sub = commands.add_parser(kind, help=about)
        sub.add_argument("place", metavar="FILE.py[:Class]", help=about)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )


def run(args: argparse.Namespace) -> int:
    from generalist.commands.check.find import KINDS

    reports: dict[str, list[Line]] = {}
    for name, lines in KINDS[args.kind](args.place):
        if not args.json:
            print(f"{args.kind} {name}")
        reports[name] = []
        for line in lines:
            reports[name].append(line)
            if not args.json:
                print(f"  {line}", flush=True)
    every = [line for lines in reports.values() for line in lines]
    failed = sum(not line.passed for line in every)
    if args.json:
        told = {name: [vars(line) for line in lines] for name, lines in reports.items()}
        print(json.dumps({"passed": not failed, "checks": told}, indent=1))
    else:
        print(f"{failed} of {len(every)} checks failed" if failed else "all passed")
    return int(failed > 0)
