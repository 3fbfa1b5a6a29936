"""What checks the package's annotations under GENERALIST_TYPECHECK=1 (`make typecheck`): beartype through jaxtyping."""

from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parent.parent
# transformers makes a dataclass of it that takes more keys than it has fields
LEFT_OUT = {"generalist.model.config"}

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a number too


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
