"""`generalist zero-shot MODEL DATA --classes NAME ...`: any saved model on any labelled data, nothing trained."""

from __future__ import annotations

import argparse
from pathlib import Path

from generalist.commands.evaluate import data_arguments, on_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="model", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("data", help="a folder, table, shards, hub:NAME or embedded:NAME with a label")
    parser.add_argument("--label", default="label", help="the field with the class")
    data_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    args.keys = [f"label={args.label}"]
    return on_data(args, "classify")
