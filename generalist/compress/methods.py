"""The words of --method: `prune:0.3`, `distil:width=96,layers=2`, `int8`, done in the order given."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Protocol, runtime_checkable

from generalist.compress.work import Work
from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.recipe.keys import parse


@runtime_checkable
class Way(Protocol):
    """One method with its settings: the fields of a dataclass, of which the first may be given without its name."""

    def check(self) -> None:
        """UserError for settings that cannot work."""
        ...

    def run(self, work: Work) -> dict[str, Any]:
        """Done to the model; what is to be told of it. UserError where it does not fit this model or data."""
        ...


METHODS: dict[str, str] = {
    "prune": "generalist.compress.ways.weights:Prune",
    "slice": "generalist.compress.ways.slicing:Slice",
    "distil": "generalist.compress.ways.distil:Distil",
    "ia_red": "generalist.compress.ways.ia_red:IaRed",
    "spatial": "generalist.compress.ways.reducers:Reduced",
    "kmeans": "generalist.compress.ways.reducers:KMeans",
    "paths": "generalist.compress.ways.paths:PathPruning",
    "lowrank": "generalist.compress.ways.weights:LowRank",
    "search": "generalist.compress.ways.search:Search",
    "int8": "generalist.compress.ways.weights:Int8",
}


@dataclass(frozen=True)
class Method:
    """One word of --method."""

    name: str
    way: Way

    def run(self, work: Work) -> dict[str, Any]:
        """Done to the model; its settings and what is to be told of it."""
        given = {f"{name} given": value for name, value in vars(self.way).items() if value not in ("", 0, None)}
        return {"method": self.name, **given, **self.way.run(work)}


def way_class(name: str) -> Any:
    """The class of a method. UserError for a name that there is not."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; {nearest(name, METHODS)} (valid: {', '.join(METHODS)})")
    return by_name(METHODS[name])


def read(word: str) -> Method:
    """`NAME`, `NAME:VALUE`, `NAME:KEY=VALUE,...` or both. UserError: unknown, or a setting that it does not have."""
    name, colon, text = word.partition(":")
    kind = way_class(name)
    known, types = [f.name for f in fields(kind)], typing.get_type_hints(kind)
    if colon and not known:
        raise UserError(f"{name} takes no share or setting; write --method {name}")
    values: dict[str, Any] = {}
    for number, part in enumerate(text.split(",") if colon else ()):
        key, sign, value = part.partition("=")
        if not sign:
            if number:
                raise UserError(f"{name}: {part!r} is not key=value ({', '.join(known)})")
            key, value = known[0], part
        if key not in known:
            raise UserError(f"{name} has no setting {key!r}; {nearest(key, known)} (valid: {', '.join(known)})")
        if key in values:
            raise UserError(f"{name}: {key} is given twice")
        values[key] = _value(name, key, value, types[key])
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{name} takes a {field.name} between 0 and 1; write {name}:0.3")
    way = kind(**values)
    way.check()
    return Method(name, way)


def _value(name: str, key: str, text: str, kind: Any) -> Any:
    try:
        return parse(text, kind, f"{name}: {key}")
    except UserError as error:
        raise UserError(f"{error}, such as {name}:{key}={EXAMPLES.get(kind, text)}") from error


EXAMPLES = {float: "0.3", int: "96"}


def parsed(words: Sequence[str]) -> list[Method]:
    """`prune:0.3 int8` as methods. UserError: what `read` says, or int8 before another."""
    found = [read(word) for word in words]
    if any(method.name == "int8" for method in found[:-1]):
        raise UserError("int8 is how the finished weights are stored; give it once, as the last method")
    return found
