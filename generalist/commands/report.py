"""`generalist report RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote")


def run(args: argparse.Namespace) -> int:
    from generalist.report.report import write_report

    print(write_report(args.run))
    return 0
