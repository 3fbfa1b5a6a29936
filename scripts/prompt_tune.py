"""Prompt tuning of a saved model: python -m scripts.prompt_tune MODEL DATA --fraction 0.01 --draws 3.

The same as `generalist tune ... --method prompts`, with its options.
"""

from __future__ import annotations

import sys

from generalist.cli import main as generalist


def main(argv: list[str] | None = None) -> int:
    return generalist(["tune", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
