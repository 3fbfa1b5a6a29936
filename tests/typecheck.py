"""What checks the package's annotations under GENERALIST_TYPECHECK=1 (`make typecheck`): beartype through jaxtyping."""

from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parent.parent
# transformers makes a dataclass of it that takes more keys than it has fields
LEFT_OUT = {"generalist.hf.pretrained.config"}

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a number too


def checked(function: Any) -> Any:
    """A function whose calls are checked; one that speaks of its own class (`Self`), which only a class can, is not."""
    told = getattr(function, "__annotations__", {}).values()
    return function if any("Self" in str(hint).split(".")[-1].split("[") for hint in told) else _beartype(function)


def modules() -> list[str]:
    """The import name of every file of the package that is checked (not of folders, which would name all in them)."""
    found = set()
    for room in ("data", "tokenizers_mod", "tasks", "generalist"):
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if path.name != "__init__.py":
                found.add(".".join(parts if parts[0] == "generalist" else ("generalist", *parts)))
    return sorted(found - LEFT_OUT)


def install() -> None:
    """Every module of the package that is imported from here on is checked: kinds, sizes, axes that are named alike."""
    install_import_hook(modules(), f"{__name__}.checked")
