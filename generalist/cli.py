"""The `generalist` command: parses words, hands over, and turns mistakes into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import sys

from data.errors import UserError, nearest

# name -> (module with add_arguments(parser) and run(args), one line, example)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": ("train", "train a recipe, evaluate it, write its report", "generalist train demo steps=400 --out runs/short"),
    "eval": ("evaluate", "evaluate a trained run on held-out data", "generalist eval runs/demo --json"),
    "predict": (
        "predict",
        "rank candidates for an input of any modality",
        'generalist predict runs/demo --image seven.png --candidates "seven" "nine"',
    ),
    "report": ("report", "write the run's report.html anew", "generalist report runs/demo"),
    "info": ("info", "versions, devices, modalities, tasks, recipes", "generalist info --json"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="generalist",
        description="One encoder and one likelihood for any modality: p(y|x) ~ exp(cos(f(x), f(y)) * scale).",
        epilog="Example: generalist train demo. Exit codes: 0 done, 2 your mistake (one line says which), 130 stopped.",
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, about, example) in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about, epilog=f"Example: {example}")
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
        importlib.import_module(f"generalist.commands.{module}").add_arguments(sub)
    return top


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    words = [w for w in argv if not w.startswith("-")]
    if words and words[0] not in COMMANDS:
        print(f"generalist: unknown command {words[0]!r}; {nearest(words[0], COMMANDS)}", file=sys.stderr)
        return 2
    args = parser().parse_args(argv)
    if args.command is None:
        parser().print_help()
        return 0
    module = importlib.import_module(f"generalist.commands.{COMMANDS[args.command][0]}")
    try:
        return int(module.run(args) or 0)
    except UserError as error:
        if args.debug:
            raise
        print(f"generalist: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if args.debug:
            raise
        print("generalist: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if args.debug:
            raise
        where = f" {error.filename}" if error.filename else ""
        print(f"generalist: {error.strerror or error}:{where} (--debug shows where)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
