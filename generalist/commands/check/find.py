"""Classes under test: by a name of the project's tables, or in a file of somebody's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from generalist.commands.check import mixer, mixer_model, modality, task
from generalist.commands.check.lines import Fault, Line, lines_of
from generalist.data.base.errors import UserError, nearest
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS
from generalist.recipe.load import load_recipe, module_of
from generalist.recipe.recipe import Recipe
from generalist.tasks.base.task import Task
from generalist.tasks.registry.table import TASKS
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class
from generalist.tokenizers_mod.maps.base import MapOperator

Tried = Iterator[tuple[str, Iterator[Line]]]  # (name, its lines) of every class or task


def modalities(place: str) -> Tried:
    """Every modality that `place` names."""
    table = {name: modality_class(name) for name in MODALITIES}
    for own in _classes(place, Modality, table):
        yield own.__name__, _lines(partial(modality.Subject, own), modality.CHECKS)


def tasks(place: str) -> Tried:
    """Every task that `place` names, or that its recipe holds."""
    made = _recipe(place)
    if made is not None:
        for given in made.tasks:
            yield given.name, _lines(partial(task.Subject, given, made.modalities), task.CHECKS)
        return
    for own in _classes(place, Task, TASKS):
        yield own.__name__, _lines(partial(task.Subject.of, own), task.CHECKS)


def mixers(place: str) -> Tried:
    """Every token and channel mixer that `place` names."""
    table = {name: name for name in (*TOKEN_MIXERS, *CHANNEL_MIXERS)}
    for own in _classes(place, (Mixer, MapOperator), table):
        name = own if isinstance(own, str) else mixer_model.registered(own)
        yield name, _lines(partial(mixer_model.Subject, name), mixer.CHECKS)


KINDS: dict[str, Callable[[str], Tried]] = {"modality": modalities, "task": tasks, "mixer": mixers}


def _lines(make: Callable[[], Any], checks: Mapping[str, Any]) -> Iterator[Line]:
    """The lines of all checks; one alone where the examples cannot even be built."""
    try:
        made = make()
    except Fault as fault:
        yield Line("examples", "FAILED", str(fault))
    except Exception as error:  # whatever foreign code raises is what is wrong with it
        yield Line("examples", "FAILED", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    else:
        yield from lines_of(checks, made)


def _recipe(place: str) -> Recipe | None:
    """The recipe of a file that has a function `recipe`: its tasks are tried on their own records."""
    path = Path(place)
    if path.suffix != ".py" or not path.is_file() or "recipe" not in vars(module_of(path)):
        return None
    return load_recipe(place)


def _classes(place: str, base: type | tuple[type, ...], table: Mapping[str, Any]) -> list[Any]:
    bases = base if isinstance(base, tuple) else (base,)
    what = bases[0].__name__.lower()
    file, _, name = place.rpartition(":") if ".py:" in place else (place, "", "")
    path = Path(file)
    if path.suffix != ".py":
        if file not in table:
            raise UserError(f"no {what} {file!r}; {nearest(file, table)} (or give FILE.py[:Class])")
        return [table[file]]
    if not path.is_file():
        raise UserError(f"no file {path}; check the path")
    own = vars(module_of(path))
    kinds = {n: k for n, k in own.items() if isinstance(k, type) and issubclass(k, base) and k.__module__ == path.stem}
    if not kinds:
        names = " or ".join(f"{b.__module__}.{b.__name__}" for b in bases)
        raise UserError(f"{path} defines no class that derives from {names}")
    if name and name not in kinds:
        raise UserError(f"{path}: no {bases[0].__name__} class {name!r} in it; {nearest(name, kinds)}")
    return [kinds[name]] if name else list(kinds.values())
