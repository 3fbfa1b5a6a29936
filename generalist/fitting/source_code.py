"""A recipe as Python that a person reads and edits: only what differs from the defaults, one function `recipe`."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.recipe.recipe import Recipe

WIDE = 108  # of a line


def written(recipe: Recipe, told: list[str]) -> str:
    """The file's text. told: lines of its docstring."""
    imports: dict[str, set[str]] = {"generalist.recipe.recipe": {"Recipe"}}
    body = _source(recipe, imports, 4)
    lines = "\n".join(told)
    heads = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(imports.items())]
    escaped = lines.replace("\\", "\\\\").replace('"""', "'''")
    start = f'"""{escaped}\n"""\n\nfrom __future__ import annotations\n\n'
    return f"{start}{chr(10).join(heads)}\n\n\ndef recipe() -> Recipe:\n    return {body}\n"


def _source(value: Any, imports: dict[str, set[str]], indent: int) -> str:
    """A value as an expression; what does not fit into a line is broken below `indent`."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        imports.setdefault(kind.__module__, set()).add(kind.__qualname__)
        parts = [f"{f.name}={_source(vars(value)[f.name], imports, indent + 4)}" for f in changed(value)]
        return _joined(f"{kind.__qualname__}(", parts, ")", indent)
    if isinstance(value, dict):
        parts = [f"{k!r}: {_source(v, imports, indent + 4)}" for k, v in value.items()]
        return _joined("{", parts, "}", indent)
    if isinstance(value, list | tuple):
        parts = [_source(v, imports, indent + 4) for v in value]
        if isinstance(value, tuple):
            return _joined("(", parts, ",)" if len(parts) == 1 else ")", indent)
        return _joined("[", parts, "]", indent)
    if isinstance(value, str | int | float | bool) or value is None:
        return repr(value)
    raise UserError(f"a recipe holds JSON values and dataclasses only, not {type(value).__name__}")


def changed(value: Any) -> list[Any]:
    """The fields of a dataclass that differ from their defaults."""
    found = []
    for f in fields(value):
        if not f.init:
            continue
        usual = f.default_factory() if f.default_factory is not MISSING else f.default
        if usual is MISSING or vars(value)[f.name] != usual:
            found.append(f)
    return found


def _joined(start: str, parts: list[str], end: str, indent: int) -> str:
    line = f"{start}{', '.join(parts)}{end}"
    if len(line) + indent <= WIDE and "\n" not in line:
        return line
    space = " " * (indent + 4)
    return f"{start}\n" + "".join(f"{space}{part},\n" for part in parts) + " " * indent + end.lstrip(",")


def save(recipe: Recipe, told: list[str], path: Path) -> None:
    """Write the file. UserError where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(recipe, told), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from error
