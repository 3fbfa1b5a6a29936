"""Models that come with the package, by name, and how a command finds the folder of any model.

    generalist zero-shot starter photos/        # the name stands wherever a model's folder may
    generalist.load("starter")                  # (model, processor)
    AutoModel.from_pretrained(generalist.path("starter"))

A shipped model is a folder here: config, bf16 weights (read as fp32), processor, the recipe that it was trained by, and
README.md, its card with the licences of its data and what it reached.
"""

from __future__ import annotations

from pathlib import Path

from generalist.data.base.errors import UserError, nearest

HOME = Path(__file__).parent
CONFIG, CARD = "config.json", "README.md"


def names() -> list[str]:
    """The shipped models."""
    return sorted(place.parent.name for place in HOME.glob(f"*/{CONFIG}"))


def path(name: str) -> Path:
    """The folder of a shipped model. UserError for another name."""
    if name not in names():
        raise UserError(f"no model {name!r} comes with the package; {nearest(name, names())}")
    return HOME / name


def model_folder(place: Path) -> Path | None:
    """The model folder of a run's folder, of a model folder or of a shipped model's name; None where there is none.

    What lies there goes before a name.
    """
    for folder in (place / "model", place):
        if (folder / CONFIG).is_file():
            return folder
    return path(str(place)) if str(place) in names() else None
