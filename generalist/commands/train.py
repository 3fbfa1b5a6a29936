"""`generalist train RECIPE [key=value ...]`."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{parser.description}. `generalist recipe RECIPE` lists every key that key=value may set, with its value, "
        "default and meaning (`generalist recipe demo optimizer` a part of them)."
    )
    parser.add_argument("recipe", help="a recipe's name (generalist info lists them), a .py file or a recipe.json")
    parser.add_argument(
        "keys",
        nargs="*",
        metavar="key=value",
        help="changes to the recipe, such as optimizer.lr=1e-3 (generalist recipe lists the keys)",
    )
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the run's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that already stands in the folder")
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="go on where the folder holds a checkpoint, else start: one command for a job that is started again",
    )
    parser.add_argument("--no-baseline", action="store_true", help="no ordinary method beside the results")
    parser.add_argument(
        "--log",
        nargs="+",
        metavar="TRACKER",
        help="who is told the scalars: tensorboard (default), wandb, mlflow, trackio ... (key trackers)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of the table")

    several = parser.add_argument_group("several machines", "print the launcher's line of every node (--run runs one)")
    several.add_argument("--nodes", help="addresses of the nodes, the first hosts the rendezvous: 10.0.0.1,10.0.0.2")
    several.add_argument("--processes", type=int, default=1, help="processes a node (its GPUs)")
    several.add_argument("--launcher", default="torchrun", help="torchrun or deepspeed")
    several.add_argument("--min-nodes", type=int, default=0, help="torchrun goes on with as few nodes when some die")
    several.add_argument("--port", type=int, default=29500, help="port of the first node")
    several.add_argument("--interface", default="", help="network interface that joins the nodes, such as eth0")
    several.add_argument("--hostfile", default="", help="the DeepSpeed launcher's list of nodes (written by --run)")
    several.add_argument("--run", type=int, nargs="?", const=0, metavar="NODE", help="run the line of this node number")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.data.base.errors import UserError
    from generalist.evaluate.heldout import failed
    from generalist.machine.ranks import is_first
    from generalist.machine.startup import check_environment
    from generalist.recipe.keys import override
    from generalist.recipe.load import load_recipe
    from generalist.run.attempt import Interrupted
    from generalist.run.results import table
    from generalist.run.train import train_run
    from generalist.train.checkpoints.checkpoint import folders

    if args.nodes:
        return launch(args)
    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a run and --overwrite removes it; give one of them")
    for problem in check_environment():
        raise UserError(problem)
    recipe = load_recipe(args.recipe)
    override(recipe, *args.keys)
    recipe.baseline &= not args.no_baseline
    recipe.trackers = args.log or recipe.trackers
    out = args.out or recipe.folder
    resume, overwrite = args.resume, args.overwrite
    if args.auto_resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        resume = bool(folders(out))
        overwrite = not resume
    try:
        metrics = train_run(recipe, out, resume, overwrite, args.quiet, args.trust)
    except Interrupted as stop:
        step, number = stop.args
        keys = " ".join([args.recipe, *args.keys])
        if is_first():
            print(f"stopped after step {step}, saved; go on with: generalist train {keys} --out {out} --resume")
        return 0 if number == signal.SIGTERM else 130  # a preempted job is no failed job
    if not metrics:
        return 0
    code = 1 if failed(metrics) else 0
    if args.json:
        print(json.dumps(metrics, indent=1))
        return code
    print(table(metrics))
    print(f"\nmodel {out / 'model'}   report {out / 'report.html'}   {metrics['seconds']['train']:.0f} s of training")
    return code


def launch(args: argparse.Namespace) -> int:
    """Print the launcher's lines, or become the one of node `--run`."""
    import sys

    from generalist.data.base.errors import UserError
    from generalist.machine.command_line import Launch

    kept = [("--out", args.out), ("--resume", args.resume), ("--overwrite", args.overwrite), ("--quiet", args.quiet)]
    words = ["train", args.recipe, *args.keys]
    for name, value in [
        *kept,
        ("--auto-resume", args.auto_resume),
        ("--no-baseline", args.no_baseline),
        ("--json", args.json),
        ("--trust", args.trust),
    ]:
        words += [name] if value is True else [name, str(value)] if value else []
    plan = Launch(
        args.nodes.split(","),
        words,
        args.launcher,
        args.processes,
        args.port,
        args.min_nodes,
        interface=args.interface,
        hostfile=args.hostfile,
        python="python" if args.run is None else sys.executable,
    )
    if args.run is None:
        print(plan.text())
        return 0
    if not 0 <= args.run < len(plan.nodes):
        raise UserError(f"--run {args.run}: the nodes are numbered 0 to {len(plan.nodes) - 1}")
    os.environ |= plan.environment()
    if plan.hostfile:
        with open(plan.hostfile, "w", encoding="utf-8") as file:
            file.write(plan.hosts())
        plan.write_environment(Path(".deepspeed_env"))
    command = plan.words(args.run)
    return os.execvp(command[0], command)
