"""The site: pages beside the rooms, tutorials, and a reference made of docstrings, commands and recipe keys.

make docs                                  # build/docs/html/index.html, nothing is loaded from elsewhere to read it
python -m scripts.docs OUT [--notebooks]   # the same into OUT; the tutorials beside it as notebooks that run
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generalist.cli import COMMANDS, parser
from generalist.data.base.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# the site's chapters, page by page; a test holds that every page stands in one
CHAPTERS: dict[str, tuple[str, ...]] = {
    "Tutorials": (
        ".docs/tutorials/own_data.md",
        ".docs/tutorials/few_examples.md",
        ".docs/tutorials/forecast.md",
        ".docs/tutorials/detection.md",
        "tests/examples/README.md",
        "generalist/launchers/README.md",
    ),
    "How to": (
        "generalist/fitting/README.md",
        "generalist/commands/README.md",
        "data/sources/README.md",
        "generalist/convert/README.md",
        "tokenizers_mod/pretrained/README.md",
        "generalist/shipped/README.md",
        "generalist/shipped/starter/README.md",
        "generalist/adapt/README.md",
        "generalist/compress/README.md",
        "generalist/inspect/README.md",
        "generalist/hf/README.md",
        "generalist/serve/README.md",
        ".github/SECURITY.md",
    ),
    "Results": ("scripts/README.md",),
    "Inside": (
        "generalist/README.md",
        "data/README.md",
        "tokenizers_mod/README.md",
        "tasks/README.md",
        "generalist/nn/README.md",
        "generalist/nn/mixers/README.md",
        ".github/CONTRIBUTING.md",
        ".github/CHANGELOG.md",
    ),
}
# what the README promises to keep steady
PUBLIC = (
    "generalist.fit",
    "generalist.hf.model.GeneralistModel",
    "generalist.hf.processor.GeneralistProcessor",
    "generalist.hf.pretrained.config.GeneralistConfig",
    "generalist.recipe.recipe.Recipe",
    "generalist.tokenizers_mod.base.base.Modality",
    "generalist.tasks.base.task.Task",
    "generalist.data.stream.source.Source",
    "generalist.data.batch.types.Span",
    "generalist.data.batch.types.Example",
)
GENERATED = {
    "commands": "Commands",
    "keys": "Recipe keys",
    "modalities": "Modalities",
    "tasks": "Tasks",
    "api": "Python",
}


def main(words: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", nargs="?", type=Path, default=ROOT / "build" / "docs")
    options.add_argument("--notebooks", action="store_true", help="write the tutorials as notebooks, too")
    args = options.parse_args(words)
    for needed in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(needed) is None:
            raise UserError(f"{needed} is missing: pip install 'generalist-encoder[docs]'")
    source = args.out / "source"
    gather(source)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", source, args.out / "html"]
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    if args.notebooks:
        notebooks(args.out / "notebooks")
    print(f"{args.out / 'html' / 'index.html'}")


def pages() -> list[str]:
    return [name for chapter in CHAPTERS.values() for name in chapter]


def gather(source: Path) -> None:
    """All pages as the site's source: those of the project with their links turned, and the generated ones."""
    if source.exists():
        shutil.rmtree(source)
    source.mkdir(parents=True)
    shutil.copy(ROOT / ".docs" / "conf.py", source)
    (source / "static").mkdir()
    shutil.copy(ROOT / ".docs" / "style.css", source / "static")
    homes = {"README.md": "index.md"} | {name: _flat(name) for name in pages()}
    for name, home in homes.items():
        text = linked(name, homes, source)
        if home == "index.md":
            text += "\n" + "\n".join(_contents(*chapter) for chapter in _chapters(homes))
        (source / home).write_text(text, encoding="utf-8")
    for name, title in GENERATED.items():
        text = f"# {title}\n\n" + "\n".join(globals()[f"about_{name}"]())
        (source / f"reference_{name}.md").write_text(text + "\n", encoding="utf-8")


def linked(name: str, homes: dict[str, str], source: Path) -> str:
    """A page's text; links to other pages lead to their place in the site, pictures are copied, files are told."""
    here = (ROOT / name).parent

    def turned(match: re.Match[str]) -> str:
        picture, shown, link, anchor = match.groups(default="")
        target = (here / link).resolve().relative_to(ROOT).as_posix()
        if target in homes:
            return f"{picture}[{shown}]({homes[target]}{anchor})"
        if picture:
            (source / "pictures").mkdir(exist_ok=True)
            shutil.copy(ROOT / target, source / "pictures")
            return f"![{shown}](pictures/{Path(target).name})"
        return shown if shown.startswith("`") else f"{shown} (`{target}`)"

    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"(!?)\[([^\]]*)\]\((?!http|#)([^)#]+)(#[^)]*)?\)", turned, text)
    return re.sub(r"<details><summary>.*</summary>|</details>|<!-- .* -->", "", text)


def _flat(name: str) -> str:
    """data/sources/README.md -> data_sources.md"""
    return re.sub(r"(/README)?\.md$", "", name.lstrip(".")).replace("/", "_").lower() + ".md"


def _chapters(homes: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    for title, names in CHAPTERS.items():
        yield title, [homes[name] for name in names]
    yield "Reference", [f"reference_{name}.md" for name in GENERATED]


def _contents(title: str, names: list[str]) -> str:
    return "\n".join(["```{toctree}", f":caption: {title}", ":hidden:", "", *names, "```"])


def about_commands() -> Iterator[str]:
    """The help of every command."""
    import os

    os.environ["COLUMNS"] = "110"
    subs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name in COMMANDS:
        yield f"## generalist {name}\n\n```\n{subs.choices[name].format_help().rstrip()}\n```\n"


def about_keys() -> Iterator[str]:
    """Every dataclass of a recipe: key, type, default; what they mean is its docstring."""
    from generalist.recipe.recipe import Recipe

    seen: list[type] = []

    def walk(cls: type, prefix: str) -> Iterator[str]:
        seen.append(cls)
        yield f"## {prefix or 'the recipe'}\n\n```\n{inspect.getdoc(cls)}\n```\n"
        yield "| key | type | default |\n|---|---|---|"
        inner = []
        for field in dataclasses.fields(cls):
            if not field.init:
                continue
            default: Any = field.default
            if default is dataclasses.MISSING:
                made: Any = field.default_factory
                default = made() if made is not dataclasses.MISSING else "-"
                if dataclasses.is_dataclass(default):
                    inner.append((type(default), f"{prefix}{field.name}."))
                    default = f"{type(default).__name__}()"
            kind = str(field.type).replace("|", "or")
            yield f"| `{prefix}{field.name}` | `{kind}` | `{default!r}` |"
        yield ""
        for other, deeper in inner:
            if other not in seen:
                yield from walk(other, deeper)

    yield from walk(Recipe, "")


def about_modalities() -> Iterator[str]:
    from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class

    yield from _classes({name: modality_class(name) for name in MODALITIES})


def about_tasks() -> Iterator[str]:
    from generalist.tasks.registry.table import TASKS

    yield from _classes(TASKS)


def _classes(table: dict[str, Any]) -> Iterator[str]:
    for name, cls in sorted(table.items()):
        yield f"## {name}\n\n{described(cls)}\n"


def about_api() -> Iterator[str]:
    """Public classes and functions: signature, docstring, methods."""
    for name in PUBLIC:
        module, _, attribute = name.rpartition(".")
        item = getattr(importlib.import_module(module), attribute)
        yield f"## {name}\n\n{described(item)}\n"
        for method, made in methods(item):
            yield f"### {attribute}.{method}\n\n{described(made)}\n"


def methods(item: Any) -> list[tuple[str, Any]]:
    """The public methods that the project itself gives a class, its own and those of its bases."""
    found = inspect.getmembers(item, inspect.isfunction) if inspect.isclass(item) else []
    return [
        (name, made)
        for name, made in found
        if not name.startswith("_") and made.__doc__ and str(made.__module__).startswith("generalist.")
    ]


def described(item: Any) -> str:
    """A signature and a docstring, as they stand in the code."""
    try:
        signature = str(inspect.signature(item))
    except (TypeError, ValueError):
        signature = "(...)"
    signature = re.sub(r"<factory>|<dataclasses\._\w+ object at \w+>", "...", signature).replace("'", "")
    signature = re.sub(r" at 0x[0-9a-f]+", "", signature)
    if len(signature) > 100:
        signature = signature.replace(", ", ",\n    ").replace("(", "(\n    ", 1)
    return f"```\n{item.__name__}{signature}\n\n{inspect.getdoc(item) or ''}\n```"


KERNEL = "---\njupyter:\n  kernelspec: {name: python3, display_name: Python 3, language: python}\n---\n\n"


def notebooks(out: Path) -> None:
    """The tutorials as notebooks: shell blocks become %%bash cells."""
    import jupytext

    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / ".docs" / "tutorials").glob("*.md")):
        notebook = jupytext.reads(KERNEL + path.read_text(encoding="utf-8"), fmt="md")
        jupytext.write(notebook, out / f"{path.stem}.ipynb")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"docs: {error}")
