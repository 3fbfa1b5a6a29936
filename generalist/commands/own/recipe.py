"""`generalist recipe NAME|RUN`: every key of a recipe with its type, value, default and what it is."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name, a .py file, a recipe.json, or a run's folder")
    parser.add_argument("keys", nargs="*", help="only keys that begin like this, such as optimizer or tasks.digits")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from generalist.data.base.errors import UserError, nearest
    from generalist.recipe.described import described
    from generalist.recipe.json import to_json
    from generalist.recipe.load import load_recipe

    path = Path(args.recipe)
    if path.is_dir():
        if not (path / "recipe.json").is_file():
            raise UserError(f"{path} is no run's folder (no recipe.json); give a recipe's name, its file or a run")
        path = path / "recipe.json"
    every = described(load_recipe(str(path)))
    keys = [key for key in every if not args.keys or any(_below(key.path, start) for start in args.keys)]
    if not keys:
        raise UserError(f"no key {args.keys[0]!r}; {nearest(args.keys[0], [key.path for key in every])}")
    if args.json:
        told = [{"key": k.path, "type": k.kind, "value": k.value, "default": k.default, "about": k.about} for k in keys]
        print(json.dumps(to_json(told), indent=1, ensure_ascii=False))
        return 0
    for key in keys:
        print(_line(key.path, key.kind, key.value, key.default, key.needed, key.about))
    return 0


def _below(path: str, start: str) -> bool:
    return path == start or path.startswith(start if start.endswith(".") else f"{start}.")


def _line(path: str, kind: str, value: object, default: object, needed: bool, about: str) -> str:
    """`key = value  type [default]  what it is`; a group of keys is its kind alone."""
    from dataclasses import is_dataclass

    if is_dataclass(value):
        return f"{path}  ({type(value).__name__}) {about}".rstrip()
    usual = "needed" if needed else "default" if value == default else f"default {default!r:.60}"
    return f"{path} = {value!r:.80}  {kind} [{usual}]  {about}".rstrip()
