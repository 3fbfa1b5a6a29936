"""DeepSpeed's launcher for a run that may be preempted: `python -m generalist.launchers.deepspeed` takes its own words.

On SIGTERM DeepSpeed's launcher (0.19) on one node dies at once and leaves its workers behind (measured); on several it
asks the nodes to end, waits for a second and ends with 1 whatever they save (its source). Here SIGTERM is put into the
run's folder (`generalist.machine.stop_file`), which every node sees: the run ends its step and saves, the launcher
ends by itself, and the code is 0. All within GRACE seconds, or everything is ended and the code says so. The rest is
DeepSpeed's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from generalist.data.base.errors import UserError
from generalist.launchers.agent import GRACE
from generalist.machine import stop_file

PROGRAM = "generalist.cli"
LAST = 40.0  # seconds for DeepSpeed's launchers to end their workers: they wait 30


def folder_of(words: list[str]) -> Path:
    """The folder of the run that the launcher's words start. UserError when they start no training."""
    from generalist.cli import parser

    own = words[words.index(PROGRAM) + 1 :] if PROGRAM in words else []
    if own[:1] != ["train"]:
        raise UserError(f"this launcher starts a training: ... --no_local_rank --module {PROGRAM} train RECIPE")
    args, rest = parser().parse_known_args(own)
    if args.out:
        return args.out
    from generalist.recipe.keys import override
    from generalist.recipe.load import load_recipe

    recipe = load_recipe(args.recipe)
    override(recipe, *args.keys, *(word for word in rest if "=" in word))
    return recipe.folder


def main(words: list[str] | None = None) -> int:
    """Exit code: DeepSpeed's; after SIGTERM 0 where the run has saved, else 143."""
    words = sys.argv[1:] if words is None else words
    try:
        out = folder_of(words)
    except UserError as error:
        print(f"generalist: {error}", file=sys.stderr)
        return 2
    stop_file.answer(out)
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        stop_file.ask(out)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    # a session of its own: what a terminal or a scheduler sends to this process's group is this process's to answer
    process = subprocess.Popen([sys.executable, "-m", "deepspeed.launcher.runner", *words], start_new_session=True)
    end = float("inf")
    while ended(process) is None and time.monotonic() < end:
        if asked and end == float("inf"):
            end = time.monotonic() + GRACE
    if process.returncode is None:
        return _told(f"not saved within {GRACE} s of signal {asked[0]}: ended", _end(process, 128 + asked[0]))
    if not asked:
        return process.returncode if process.returncode >= 0 else 128 - process.returncode
    if stop_file.is_asked(out):
        return _told(f"stopped by signal {asked[0]} before the run saved", 128 + asked[0])
    return 0


def ended(process: subprocess.Popen, seconds: float = 1.0) -> int | None:
    """The code of a process that ends within so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _end(process: subprocess.Popen, code: int) -> int:
    """End the launchers and their workers, on the other nodes too, which DeepSpeed's launcher reaches."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        ended(process, LAST)
    return code


def _told(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
