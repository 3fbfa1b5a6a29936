"""Prompt tuning of a saved model: python -m scripts.prompt_tune MODEL DATA --fraction 0.01 --draws 3.

The same as `generalist tune ... --method prompts`, with its options.
"""

from __future__ import annotations

import argparse
import sys

from generalist.commands.tune import add_arguments, run


def main(argv: list[str] | None = None) -> int:
    from data.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except UserError as error:
        print(f"prompt_tune: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
