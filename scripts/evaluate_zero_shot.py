"""Zero-shot evaluation of a saved model: python -m scripts.evaluate_zero_shot MODEL DATA --classes cat dog.

DATA is a folder by class, a table, webdataset shards, hub:NAME or embedded:NAME; the classes are those of the data
unless they are given. Writes result.json, predictions.jsonl and reliability.svg with --out.
"""

from __future__ import annotations

import argparse
import sys

from generalist.commands.zero_shot import add_arguments, run


def main(argv: list[str] | None = None) -> int:
    from data.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except UserError as error:
        print(f"evaluate_zero_shot: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
