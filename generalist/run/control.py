"""The control of a frozen run: the same run on an encoder of random weights, and its values beside the results.

    generalist train my.py model.encoder_from=DIR model.freeze=encoder model.control=true

trains RUN, then RUN/control with model.random_encoder=true, and puts the control's value into every line of
metrics.json, the table and the report. A frozen run without its control says so in the same places.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.recipe.json import from_json
from generalist.recipe.recipe import Recipe

FOLDER = "control"


def is_frozen(recipe: Recipe) -> bool:
    """Whether weights from elsewhere are held fixed, so that a result needs its control."""
    model = recipe.model
    held = model.freeze not in ("nothing", "towers")
    return held and bool(model.encoder_from or recipe.init) and not model.random_encoder


def check_control(recipe: Recipe, processes: int = 1) -> None:
    """UserError where model.control=true has nothing to control or more than one process would train it."""
    if not recipe.model.control:
        return
    if not is_frozen(recipe):
        raise UserError(
            "model.control=true is for frozen weights; set model.freeze=encoder and model.encoder_from, or leave it out"
        )
    if processes > 1:
        raise UserError("model.control=true trains in one process; launch the same run with model.random_encoder=true")


def control_recipe(as_given: dict[str, Any]) -> Recipe:
    """The frozen run's recipe, as it was before anything was learnt, with a random encoder and all else equal."""
    recipe = from_json(json.loads(json.dumps(as_given)), own=True)
    recipe.model.random_encoder, recipe.model.control, recipe.init = True, False, ""
    return recipe


def add_control(recipe: Recipe, lines: dict[str, dict[str, Any]], out: Path) -> None:
    """The control's value in every line of a frozen run, None where the control was not run; other runs stay."""
    if not is_frozen(recipe):
        return
    try:
        found = json.loads((out / FOLDER / "metrics.json").read_text())["tasks"]
    except (OSError, ValueError, KeyError):
        found = {}
    for name, line in lines.items():
        line["control"] = found.get(name, {}).get("value")
