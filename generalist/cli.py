"""The `generalist` command: parses words, hands over, and turns mistakes into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from typing import NoReturn

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.trust import trusting
from generalist.machine.launched import launched_world
from generalist.machine.startup import hush

# name -> (module with add_arguments(parser) and run(args), one line, example)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": (
        "train",
        "train a recipe, evaluate it, write its report",
        "generalist train demo steps=400 --out runs/short",
    ),
    "fit": (
        "own.fit",
        "your own data in one command: looked at, decided, written as a recipe, trained, measured",
        "generalist fit train.csv --label price --time 10m --out runs/house",
    ),
    "recipe": (
        "own.recipe",
        "a recipe key by key: type, value, default and what it is",
        "generalist recipe demo optimizer validation",
    ),
    "eval": ("evaluate", "evaluate a trained run on held-out data", "generalist eval runs/demo --json"),
    "predict": (
        "predict",
        "rank candidates for an input of any modality",
        'generalist predict runs/demo --image seven.png --candidates "seven" "nine"',
    ),
    "zero-shot": (
        "zero_shot",
        "score a saved model on labelled data of your own, nothing trained",
        'generalist zero-shot runs/demo photos/ --template "a photo of {}" --out results/',
    ),
    "tune": (
        "tune",
        "adapt a trained model with little labelled data",
        "generalist tune runs/demo photos/ --method zero-shot prompts full --shots 16 --draws 3",
    ),
    "describe": (
        "describe",
        "write a caption for an image or a clip",
        "generalist describe models/uni --image dog.jpg --beam 2",
    ),
    "serve": (
        "serving.serve",
        "a saved model behind HTTP, with a page to try it: rank, encode, forecast, detect, describe",
        "generalist serve runs/demo --port 8000",
    ),
    "export": (
        "serving.export",
        "a saved model for other runtimes: ONNX, torch.export, int8 by torchao; each compared with the model",
        "generalist export runs/demo onnx --out exported/",
    ),
    "index": (
        "serving.index",
        "the vectors of everything in a folder, made once and brought up to date",
        "generalist index runs/demo photos/ --out photos.index",
    ),
    "search": (
        "serving.search",
        "what in an index is nearest to words, a picture or a sound",
        'generalist search photos.index --text "a red square"',
    ),
    "inspect": (
        "inspect",
        "a look inside a model while it answers: its attention heads, its errors, similar training samples",
        "generalist inspect runs/demo embedded:digits --task digits --what heads errors similar",
    ),
    "compress": (
        "inspect.compress",
        "a smaller copy of a saved model, measured beside it: pruned, of low rank, stored as int8",
        "generalist compress runs/demo --method prune:0.3 int8 --out models/small",
    ),
    "report": ("report", "write the run's report.html anew", "generalist report runs/demo"),
    "convert": (
        "convert",
        "weights of a published model as a model folder",
        "generalist convert uni-perceiver model.pth --out models/uni",
    ),
    "models": (
        "own.models",
        "pretrained weights on this machine: names for recipes, size, licence, modality",
        "generalist models ~/models --json",
    ),
    "parity": (
        "check.parity",
        "a converted model beside its original again: largest differences",
        "generalist parity models/clip",
    ),
    "resume-check": ("resume_check", "prove a run's checkpoint readable", "generalist resume-check runs/demo"),
    "plan": (
        "plan",
        "memory, speed and days of a recipe on many GPUs, before they are paid for",
        "generalist plan demo --gpus 64 --gpu h100",
    ),
    "data": (
        "data",
        "write shards of a data set, find what is wrong with it, show what is in it",
        "generalist data shard photos/ shards/photos --workers 2",
    ),
    "check": (
        "check",
        "try a modality or a task of your own: what the rest of the project relies on",
        "generalist check modality my_modality.py",
    ),
    "info": ("info", "versions, devices, modalities, tasks, recipes", "generalist info --json"),
}

TOLD_AT_ONCE = {"info"}  # commands that say something before they import anything


SHELLS = ("bash", "zsh", "tcsh")


class Help(argparse.HelpFormatter):
    """Wraps what is said of options, and leaves lines of a description as they are where it has several."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.splitlines())


class Parser(argparse.ArgumentParser):
    """argparse with its mistakes as `UserError`, so that they end in one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The whole command line; imports nothing heavy."""
    top = Parser(
        prog="generalist",
        description="One encoder and one likelihood for any modality: p(y|x) ~ exp(cos(f(x), f(y)) * scale).",
        epilog="Example: generalist train demo. Exit codes: 0 done, 1 failed (a task without a result, an error), "
        "2 your mistake (one line says which), 130 stopped.",
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top.add_argument(
        "--completion",
        choices=SHELLS,
        help='print what completes commands and options in a shell: eval "$(generalist --completion bash)"',
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, about, example) in COMMANDS.items():
        sub = commands.add_parser(
            name, help=about, description=about, epilog=f"Example: {example}", formatter_class=Help
        )
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        sub.add_argument(
            "--trust",
            action="store_true",
            help="you answer for the files that are read: what they name may be imported and run",
        )
        importlib.import_module(f"generalist.commands.{module}").add_arguments(sub)
    return top


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _run(argv)
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt as error:
        return _told("stopped", 130, error, argv)
    except UserError as error:
        return _told(_one_line(error), 2, error, argv)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _told(f"{error.strerror or _one_line(error)}{where} (--debug shows where)", 2, error, argv)
    except Exception as error:
        return _told(f"{type(error).__name__}: {_one_line(error)} (--debug shows where)", 1, error, argv)


def _run(argv: list[str]) -> int:
    if argv and argv[0].partition("=")[0] == "--completion":
        return completion(argv[0].partition("=")[2] or " ".join(argv[1:2]))
    words = [w for w in argv if not w.startswith("-")]
    if words and words[0] not in COMMANDS:
        raise UserError(f"unknown command {words[0]!r}; {nearest(words[0], COMMANDS)}")
    argv, *more = parts(argv)
    args, rest = parser().parse_known_args(argv)
    if more:
        args.joined = [parser().parse_args([args.command, *part]) for part in more]
    if args.command is None:
        parser().print_help()
        return 0
    # keys may stand after options, where argparse no longer takes them
    keys = [word for word in rest if "keys" in args and "=" in word and not word.startswith("-")]
    if wrong := [word for word in rest if word not in keys]:
        raise UserError(f"{wrong[0]!r} is not understood here (see generalist {args.command} --help)")
    if keys:
        args.keys = [*args.keys, *keys]
    hush()
    if args.command not in TOLD_AT_ONCE and sys.stderr.isatty():
        print(f"generalist {args.command} ...", file=sys.stderr, flush=True)  # what it needs takes seconds to import
    module = importlib.import_module(f"generalist.commands.{COMMANDS[args.command][0]}")
    with trusting(args.trust):
        return int(module.run(args) or 0)


def completion(shell: str) -> int:
    """Print a shell's completion of commands and options."""
    if shell not in SHELLS:
        raise UserError(f"--completion {shell!r}; {nearest(shell, SHELLS)} (valid: {', '.join(SHELLS)})")
    import shtab

    print(shtab.complete(parser(), shell))
    return 0


def parts(argv: list[str]) -> list[list[str]]:
    """The words of a joint `fit`, cut at every + that stands alone; those of another command whole."""
    if "fit" not in argv[:2]:
        return [argv]
    found: list[list[str]] = [[]]
    for word in argv:
        if word == "+":
            found.append([])
        else:
            found[-1].append(word)
    return found


def _told(message: str, code: int, error: BaseException, argv: list[str]) -> int:
    """The message on stderr and the exit code; with --debug the error goes on, traceback and all."""
    if "--debug" in argv:
        raise error
    print(f"generalist: {message}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    """An error in one line; of one that a loader's worker passed on (its traceback as text), the last line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^[\w.]+Error: ", "", lines[-1]) if "Traceback" in str(error) else lines[0]


if __name__ == "__main__":
    code = main()
    if launched_world() > 1:  # a rank of a launch
        from generalist.machine.ranks import end

        end(code)
    sys.exit(code)
