"""The house, a line a file, from the files' own first lines; --write renews the tree of generalist/README.md."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "tokenizers_mod", "tasks", "generalist", "scripts")
START, END = "<!-- tree -->\n```\n", "```\n<!-- end of tree -->"


def about(path: Path) -> str:
    """The first sentence or line of a module's docstring."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    line = " ".join(text.split())
    return line if len(line) <= 110 else line[:107].rsplit(" ", 1)[0] + " ..."


def tree() -> str:
    """Every Python file of the five rooms, indented by folder."""
    lines = []
    for room in ROOMS:
        found = (ROOT / room).rglob("*.py")
        for path in sorted(found, key=lambda p: (p.parent.as_posix(), p.name != "__init__.py", p.name)):
            depth = len(path.relative_to(ROOT).parts) - 1
            if path.name == "__init__.py":
                lines.append(f"{'  ' * (depth - 1)}{path.parent.name + '/':<{28 - 2 * (depth - 1)}}{about(path)}")
            else:
                lines.append(f"{'  ' * depth}{path.name:<{28 - 2 * depth}}{about(path)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    if "--write" not in sys.argv:
        print(tree(), end="")
        return
    readme = ROOT / "generalist" / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(before + START + tree() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
