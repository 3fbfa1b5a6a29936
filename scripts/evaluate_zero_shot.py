"""Zero-shot evaluation of a saved model: python -m scripts.evaluate_zero_shot MODEL DATA --classes cat dog.

DATA is a folder by class, a table, webdataset shards, hub:NAME or embedded:NAME; the classes are those of the data
unless they are given. Writes result.json, predictions.jsonl and reliability.svg with --out.
"""

from __future__ import annotations

import sys

from generalist.cli import main as generalist


def main(argv: list[str] | None = None) -> int:
    return generalist(["zero-shot", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
