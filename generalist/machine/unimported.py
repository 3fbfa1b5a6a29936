"""Tables and classes of the package as their source says them, without importing what they need: torch takes seconds.

table(MODULE, "TOKEN_MIXERS")      # {"attention": "generalist.nn.mixers.attention:Attention", ...}
about(PATH), value(PATH, "raw")    # the first line of a class's docstring, and an attribute of its body
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HEAD = re.compile(r"\n    (?:def|async def|@)")  # where the body of a class has said what it is
NEXT = re.compile(r"^[A-Za-z_@]", re.MULTILINE)  # where the next statement of a module begins
IMPORT = re.compile(r"^from (\S+) import (\([^)]*\)|[^(\n]+)", re.MULTILINE)


@cache
def source(module: str) -> str:
    """The text of a module's file."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    return Path(spec.origin).read_text(encoding="utf-8")


def table(module: str, name: str) -> dict[str, str]:
    """{key: "module:Class"} of a dict that holds classes or their paths; classes without keys by their `kind`."""
    found = _value(module, name)
    if isinstance(found, ast.Dict):
        pairs = zip(found.keys, found.values, strict=True)
        return {str(key.value): _path(module, value) for key, value in pairs if isinstance(key, ast.Constant)}
    named = next(node for node in ast.walk(found) if isinstance(node, ast.Tuple))
    paths = [_path(module, node) for node in named.elts]
    return {value(path, "kind"): path for path in paths}


def literal(module: str, name: str) -> Any:
    """A plain value that a module gives a name."""
    return ast.literal_eval(_value(module, name))


def about(path: str, whole: bool = False) -> str:
    """The first line of a class's docstring, or of its whole file's."""
    if whole:
        found = re.match(r'\s*"""(.*?)("""|\n)', source(path.partition(":")[0]))
        return found[1].strip() if found else ""
    return (ast.get_docstring(_class(path)) or "").partition("\n")[0]


def value(path: str, attribute: str) -> Any:
    """A plain value that the head of a class's body gives an attribute, its own or the first base's that has one."""
    module, node = path.partition(":")[0], _class(path)
    found = _assigned(node.body, attribute)
    if found is None:
        bases = (value(_path(module, base), attribute) for base in node.bases if isinstance(base, ast.Name))
        return next((inherited for inherited in bases if inherited is not None), None)
    if isinstance(found, ast.Attribute):  # raw = Other.raw
        return value(_path(module, found.value), found.attr)
    return ast.literal_eval(found)


@cache
def _class(path: str) -> ast.ClassDef:
    """A class without its methods: most of what a file is."""
    module, _, name = path.partition(":")
    text = _statement(module, rf"class {name}\b")
    if (end := HEAD.search(text)) is not None:
        text = text[: end.start()] + "\n    pass\n"
    made = ast.parse(text).body[0]
    assert isinstance(made, ast.ClassDef)
    return made


def _statement(module: str, begins: str) -> str:
    """The text of the statement of a module that begins so. KeyError where there is none."""
    text = source(module)
    start = re.search(rf"^{begins}", text, re.MULTILINE)
    if start is None:
        raise KeyError(f"{module}: {begins}")
    end = NEXT.search(text, start.end())
    return text[start.start() : end.start() if end else len(text)]


def _value(module: str, name: str) -> ast.expr:
    found = _assigned(ast.parse(_statement(module, rf"{name}\b[^=\n]*=")).body, name)
    assert found is not None
    return found


def _assigned(body: Sequence[ast.stmt], name: str) -> ast.expr | None:
    """What a body sets a name to."""
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    return None


def _path(module: str, node: ast.expr) -> str:
    """ "module:Class" of a class's name in a module, or of the text that is its path."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.Name)
    for place, names in IMPORT.findall(source(module)):
        if re.search(rf"\b{node.id}\b", names):
            return f"{place}:{node.id}"
    return f"{module}:{node.id}"
