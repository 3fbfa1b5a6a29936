"""Tables and classes of the package as their source says them, without importing what they need: torch takes seconds.

table(MODULE, "TOKEN_MIXERS")      # {"attention": "generalist.nn.mixers.attention:Attention", ...}
about(PATH), value(PATH, "raw")    # the first line of a class's docstring, and an attribute of its body
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@cache
def source(module: str) -> ast.Module:
    """The syntax of a module's file."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def table(module: str, name: str) -> dict[str, str]:
    """{key: "module:Class"} of a dict that holds classes or their paths; classes without keys by their `kind`."""
    found = _assigned(source(module).body, name)
    if isinstance(found, ast.Dict):
        pairs = zip(found.keys, found.values, strict=True)
        return {str(key.value): _path(module, value) for key, value in pairs if isinstance(key, ast.Constant)}
    named = next(node for node in ast.walk(found) if isinstance(node, ast.Tuple))
    paths = [_path(module, node) for node in named.elts]
    return {value(path, "kind"): path for path in paths}


def literal(module: str, name: str) -> Any:
    """A plain value that a module gives a name."""
    return ast.literal_eval(_assigned(source(module).body, name))


def about(path: str, whole: bool = False) -> str:
    """The first line of a class's docstring, or of its whole file's."""
    node = source(path.partition(":")[0]) if whole else _class(path)
    return (ast.get_docstring(node) or "").partition("\n")[0]


def value(path: str, attribute: str) -> Any:
    """A plain value that a class's body gives an attribute, its own or that of the first base that has one."""
    module, node = path.partition(":")[0], _class(path)
    try:
        found = _assigned(node.body, attribute)
    except KeyError:
        for base in node.bases:
            if isinstance(base, ast.Name) and (inherited := value(_path(module, base), attribute)) is not None:
                return inherited
        return None
    if isinstance(found, ast.Attribute):  # raw = Other.raw
        return value(_path(module, found.value), found.attr)
    return ast.literal_eval(found)


def _class(path: str) -> ast.ClassDef:
    module, _, name = path.partition(":")
    return next(node for node in source(module).body if isinstance(node, ast.ClassDef) and node.name == name)


def _assigned(body: list[ast.stmt], name: str) -> ast.expr:
    """What a body sets a name to. KeyError where it does not."""
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    raise KeyError(name)


def _path(module: str, node: ast.expr) -> str:
    """ "module:Class" of a class's name in a module, or of the text that is its path."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.Name)
    for found in source(module).body:
        if isinstance(found, ast.ImportFrom) and any((a.asname or a.name) == node.id for a in found.names):
            return f"{found.module}:{node.id}"
    return f"{module}:{node.id}"
