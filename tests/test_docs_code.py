"""Code on the pages: every command names commands and options that exist, every import something that is there.

The quick start, the examples and the tutorials are run by tests of their own; this one looks at all the rest, line by
line, without running it.
"""

import argparse
import ast
import importlib.util
import re
import shlex
import textwrap
import tomllib

import pytest

from generalist.cli import COMMANDS, parser
from generalist.scripts import docs

PAGES = ["README.md", *docs.pages()]
EXTRAS = tomllib.loads((docs.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = re.findall(r"^([a-z]+):", (docs.ROOT / "Makefile").read_text(), re.M)


def blocks(page: str) -> list[str]:
    """The code of a page: between fences, and indented by four spaces behind an empty line."""
    text = (docs.ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    plain = re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?:^|\n\n)((?:(?:    [^\n]*)?\n)+)", plain)
    return [*fenced, *(textwrap.dedent(block) for block in indented if block.strip())]


def lines(page: str) -> list[str]:
    """The lines of a page's code, those that go on behind a backslash joined, without their comments."""
    joined = "\n".join(blocks(page)).replace("\\\n", " ")
    return [re.sub(r"\s{2,}#.*| # .*", "", line).strip() for line in joined.splitlines()]


def options_of(top: argparse.ArgumentParser, words: list[str]) -> tuple[set[str], argparse.ArgumentParser]:
    """The options that a command takes, and its parser, by the words that choose it."""
    known = set(top._option_string_actions)
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction) and words:
            for name in words[0].split("|"):
                if name in action.choices:
                    return options_of(action.choices[name], words[1:])
    return known, top


COMMAND = parser()
IMPORT = re.compile(r"^from (generalist[\w.]*) import (?:\(([^)]*)\)|([^\n(;#]+))", re.M)


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_a_page_exist_with_their_options(page):
    wrong = []
    for line in lines(page):
        line = line.removeprefix("$ ")
        if not re.match(r"generalist [a-z|]", line):
            continue
        words = shlex.split(re.sub(r"[\[\]]", " ", line.split(" | ")[0].split(" && ")[0]), comments=True)[1:]
        if not set(words[0].split("|")) <= set(COMMANDS):
            wrong.append(line)
            continue
        known, _ = options_of(COMMAND, words)
        asked = {word.split("=")[0] for word in words if word.startswith("--") and len(word) > 2}
        wrong += [f"{line}: {option}" for option in asked - known]
    assert not wrong


@pytest.mark.parametrize("page", PAGES)
def test_modules_targets_and_extras_on_a_page_exist(page):
    wrong = []
    for line in lines(page):
        for module in re.findall(r"python -m ([\w.]+)", line):
            home = docs.ROOT / module.replace(".", "/")
            if not (
                home.with_suffix(".py").is_file() or home.is_dir() or importlib.util.find_spec(module.split(".")[0])
            ):
                wrong.append(line)
        wrong += [line for target in re.findall(r"^make ([a-z]+)", line) if target not in TARGETS]
        for names in re.findall(r"generalist-encoder\[([\w,]+)\]", line):
            wrong += [f"{line}: {name}" for name in names.split(",") if name not in EXTRAS]
    assert not wrong


def names_of(module: str) -> set[str] | None:
    """What a module of the project defines or imports; None where there is no such file."""
    home = docs.ROOT / module.removeprefix("generalist.").replace(".", "/")
    places = [home, docs.ROOT / module.replace(".", "/")]
    files = [f for place in places for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()]
    if not files:
        return None
    found = {p.stem for p in files[0].parent.iterdir()} if files[0].name == "__init__.py" else set()
    for node in ast.walk(ast.parse(files[0].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_imports_on_a_page_find_what_they_name(page):
    wrong = []
    for block in blocks(page):
        for module, bracketed, plain in IMPORT.findall(block):
            there = names_of(module)
            asked = [name.split(" as ")[0].strip() for name in (bracketed or plain).split(",") if name.strip()]
            if there is None:
                wrong.append(module)
            elif module != "generalist":  # whose names are made when they are asked for
                wrong += [f"{module}.{name}" for name in asked if name not in there]
    assert not wrong


@pytest.mark.parametrize("page", PAGES)
def test_fenced_python_on_a_page_is_python(page):
    text = (docs.ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        ast.parse(block)
