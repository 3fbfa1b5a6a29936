"""Recipes found: by name, in a .py file, in a saved recipe.json."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.recipe.json import from_json
from generalist.recipe.recipe import Recipe

RECIPES: dict[str, str] = {
    "demo": "generalist.recipes.demo:demo",
    "starter": "generalist.recipes.starter:starter",
    "uni_perceiver_tiny": "generalist.recipes.uni_perceiver_tiny:uni_perceiver_tiny",
    "uni_perceiver_base": "generalist.recipes.uni_perceiver:uni_perceiver_base",
    "uni_perceiver_large": "generalist.recipes.uni_perceiver:uni_perceiver_large",
    "uni_perceiver_moe_base": "generalist.recipes.uni_perceiver:uni_perceiver_moe_base",
    "uni_perceiver_base_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_base_stage2",
    "uni_perceiver_large_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_large_stage2",
    "uni_perceiver_moe_base_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_moe_base_stage2",
    "detect_tiny": "generalist.recipes.detect_tiny:detect_tiny",
    "segment_tiny": "generalist.recipes.detect_tiny:segment_tiny",
    "uni_perceiver_v2_base": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_base",
    "uni_perceiver_v2_large": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_large",
    "uni_perceiver_v2_towers": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_towers",
}

# what each says of itself, for `generalist info`, which reads it from this file
ABOUT: dict[str, str] = {
    "demo": "nine tasks over six modalities, one encoder, one likelihood",
    "starter": "icons and names, and a little of every other modality, bound by frozen words",
    "uni_perceiver_tiny": "Uni-Perceiver v1 tiny: classification, masked words and captioning, 7 tasks",
    "uni_perceiver_base": "Uni-Perceiver v1 base: 16 tasks over images, videos and text",
    "uni_perceiver_large": "Uni-Perceiver v1 large: 16 tasks over images, videos and text",
    "uni_perceiver_moe_base": "Uni-Perceiver v1 base with experts: 16 tasks over images, videos and text",
    "uni_perceiver_base_stage2": "Uni-Perceiver v1 base: 16 tasks over images, videos and text, second stage",
    "uni_perceiver_large_stage2": "Uni-Perceiver v1 large: 16 tasks over images, videos and text, second stage",
    "uni_perceiver_moe_base_stage2": "Uni-Perceiver v1 base with experts: 16 tasks over images, videos and text, "
    "second stage",
    "detect_tiny": "blood cells detected: region proposals named by likelihood",
    "segment_tiny": "things in photographs outlined: region proposals with masks, named by likelihood",
    "uni_perceiver_v2_base": "Uni-Perceiver v2 base: regions by Swin, RoBERTa texts, a 6-layer decoder with experts",
    "uni_perceiver_v2_large": "Uni-Perceiver v2 large: regions by Swin, RoBERTa texts, a 6-layer decoder with experts",
    "uni_perceiver_v2_towers": "Uni-Perceiver v2 from two towers: init=DIR or encoders of the zoo, a 6-layer "
    "decoder with experts",
}


def load_recipe(name: str) -> Recipe:
    """A name of the table, a path of a .py file (its `recipe` function) or of a recipe.json."""
    path = Path(name)
    if path.suffix in (".json", ".py") and not path.is_file():
        raise UserError(f"no recipe file {name}; check the path")
    if path.suffix == ".json":
        return read_recipe(path)
    if path.suffix == ".py":
        return _checked(vars(module_of(path)).get("recipe"), name)
    if name in RECIPES:
        return _checked(by_name(RECIPES[name]), name)
    raise UserError(f"unknown recipe {name!r}; {nearest(name, RECIPES)} (or give a .py file)")


def read_recipe(path: Path) -> Recipe:
    """A saved recipe. UserError when the file is not JSON or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({str(error).splitlines()[0]}); restore it or train anew") from error
    loaded = from_json(values)
    if not isinstance(loaded, Recipe):
        raise UserError(f"{path} does not hold a recipe")
    return loaded


def module_of(path: Path) -> types.ModuleType:
    """Run a recipe file under its own name, as `import` would with its folder at the end of the path."""
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    found = sys.modules.get(path.stem)
    if found is not None and Path(vars(found).get("__file__") or "").resolve() != path.resolve():
        raise UserError(f"{path}: a module {path.stem!r} is in use already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[path.stem]
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(f"{path} cannot be run ({type(error).__name__}: {error}); --debug shows where") from error
    return module


def _checked(make: Callable[[], Any] | None, name: str) -> Recipe:
    if make is None:
        raise UserError(f"{name} defines no function `recipe`; add `def recipe() -> Recipe:`")
    try:
        recipe = make()
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"recipe {name!r} cannot be made ({reason}); --debug shows where") from error
    if not isinstance(recipe, Recipe):
        raise UserError(f"recipe {name!r} returns {type(recipe).__name__}, not a Recipe")
    return recipe
