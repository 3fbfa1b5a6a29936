"""What a file from elsewhere may set in motion: nothing, until the user says so.

A recipe.json, a model folder and an index of shards are data, whoever wrote them. They name classes and addresses; a
class is taken from this project, or from a module that the running program has imported already (the user's own
program or recipe file did that), and an address is never a command. `trusting`, which is what --trust
and trust_remote_code=True say, lifts both for files that the user answers for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.moved import moved

PROJECT = ("generalist",)
COMMAND = "pipe:"
HOW = "--trust (in Python trust_remote_code=True) allows it"


class _State:
    """trusted: the user answers for the files that are read; reading: files being read, one inside the other."""

    trusted = False
    reading = 0


def trusted() -> bool:
    return _State.trusted


@contextmanager
def trusting(given: bool) -> Iterator[None]:
    """Inside, files are trusted where `given` (or where they are anyway)."""
    before = _State.trusted
    _State.trusted = before or given
    try:
        yield
    finally:
        _State.trusted = before


@contextmanager
def from_file() -> Iterator[None]:
    """What is made inside comes out of a file, not from the user's own words."""
    _State.reading += 1
    try:
        yield
    finally:
        _State.reading -= 1


def check_place(place: str, where: str = "") -> None:
    """UserError for a command where an address was read from a file; where: that file, when it is not the recipe."""
    if place.startswith(COMMAND) and not _State.trusted and (where or _State.reading):
        raise UserError(
            f"{where or 'the saved recipe'} names the command {_short(place)!r}, which would run in a shell: commands "
            f"are taken from the command line and from a recipe's own .py file only; {HOW}"
        )


def find_class(path: str, what: str) -> Any:
    """The class behind "package.module:Class", named in `what`. UserError: not there, or not to be imported.

    A module that is imported already is looked into, without the attributes that it would only make when asked.
    """
    path = moved(path)
    module, _, name = path.partition(":")
    if not _allowed(module):
        raise UserError(
            f"{what} names the class {_short(path)!r}, which would import the module {_short(module)!r}; import it in "
            f"your own program or recipe file first; {HOW}"
        )
    try:
        return vars(import_module(module))[name]
    except Exception as error:  # whatever a foreign module raises while it is imported
        hint = "" if module in sys.modules else "; if it is your own file, put its folder in PYTHONPATH"
        reason = f"no {name!r} in it" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{what}: the class {_short(path)!r} cannot be imported ({reason}){hint}") from error


def _allowed(module: str) -> bool:
    """Whether a module may be imported: it is, or is the project's, or there is none of that name."""
    top = module.partition(".")[0]
    return _State.trusted or module in sys.modules or top in PROJECT or not top or find_spec(top) is None


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
