"""Recipes: keys change them by name, mistakes name the nearest key, and a saved recipe is the same recipe."""

import json

import pytest

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.recipe.described import described
from generalist.recipe.json import from_json, to_json
from generalist.recipe.keys import override
from generalist.recipe.load import RECIPES, load_recipe
from generalist.recipe.recipe import Recipe


def changed(*keys: str) -> Recipe:
    recipe = load_recipe("demo")
    override(recipe, *keys)
    recipe.check()
    return recipe


def task(recipe: Recipe, name: str):
    return next(t for t in recipe.tasks if t.name == name)


def test_keys_set_values_of_their_own_type_at_any_depth():
    recipe = changed(
        "steps=1e2",
        "sampling=mixed",
        "optimizer.lr=3e-4",
        "optimizer.betas=[0.8, 0]",
        "optimizer.bias_correction=false",
        "checkpoint.every=10",
        "tasks.digits.batch=8",
        "tasks.digits.inputs.image=pixels",
        'tasks.digits.classes=["zero", "one"]',
        "tasks.wine.source.seed=7",
        "modalities.image.patch=4",
        "modalities.series.periods=[7, 30.5]",
        "modalities.summary.as_text=none",
    )
    assert (recipe.steps, recipe.sampling) == (100, "mixed")
    assert (recipe.optimizer.lr, recipe.optimizer.betas) == (3e-4, (0.8, 0.0))
    assert (recipe.optimizer.bias_correction, recipe.checkpoint.every) == (False, 10)
    digits = task(recipe, "digits")
    assert (digits.batch, digits.inputs, digits.classes) == (8, {"image": "pixels"}, ["zero", "one"])
    assert task(recipe, "wine").source.seed == 7
    assert (recipe.modalities["image"].patch, recipe.modalities["series"].periods) == (4, [7.0, 30.5])
    assert recipe.modalities["summary"].as_text is None


def test_keys_that_need_each_other_come_in_any_order():
    for keys in (
        ["modalities.image.size=35", "modalities.image.patch=7"],
        ["modalities.image.patch=7", "modalities.image.size=35"],
    ):
        image = changed(*keys).modalities["image"]
        assert (image.size, image.patch) == (35, 7)


@pytest.mark.parametrize(
    "key, message",
    [
        ("step=100", "unknown key 'step'; did you mean 'steps'?"),
        ("optimiser.lr=1", "unknown key 'optimiser'; did you mean 'optimizer'?"),
        ("optimizer.learning=1", "unknown key 'optimizer.learning'"),
        ("tasks.digit.batch=1", "did you mean 'tasks.digits'?"),
        ("tasks.digits.batches=1", "did you mean 'tasks.digits.batch'?"),
        ("modalities.imge.patch=4", "did you mean 'modalities.image'?"),
        ("modalities.image.patchs=4", "did you mean 'modalities.image.patch'?"),
        ("steps.x=1", "unknown key 'steps.x'"),
        ("steps", "not key=value"),
        ("=5", "not key=value"),
        ("steps=many", "steps='many': this key takes int"),
        ("steps=1.5", "this key takes int"),
        ("steps=inf", "this key takes int"),
        ("steps=", "this key takes int"),
        ("optimizer.lr=fast", "this key takes float"),
        ("optimizer.lr=nan", "this key takes float"),
        ("optimizer.bias_correction=maybe", "this key takes bool"),
        ("optimizer.betas=[0.9]", "this key takes tuple[float, float]"),
        ('optimizer.betas=["a", "b"]', "this key takes tuple[float, float]"),
        ("optimizer.betas=0.9", "this key takes tuple[float, float]"),
        ("tasks.digits.classes=[1, 2]", "this key takes list[str]"),
        ("tasks.digits.inputs=[]", "this key takes dict[str, str]"),
        ("model=big", "'model' is a group of keys, not a value; set one of model.width"),
        ("tasks=none", "'tasks' is a group of keys, not a value; set one of tasks.digits"),
        ("tasks.digits.source=none", "'tasks.digits.source' is a group of keys"),
        ("steps=0", "steps must be at least 1"),
        ("seed=-1", "seed=-1: it must lie in"),
        ("optimizer.lr=-1", "optimizer.lr=-1.0: it must lie in"),
        ("optimizer.lr=inf", "optimizer.lr=inf: it must lie in"),
        ("optimizer.betas=[0.9, 1]", "each must lie in 0 <= beta < 1"),
        ("optimizer.kind=adam", "did you mean 'adamw'?"),
        ("sampling=unmixt", "did you mean 'unmixed'?"),
        ("engine.accumulate=0", "engine.accumulate=0"),
        ("model.heads=5", "model.heads=5 does not divide model.width=96; use heads=4"),
        ("model.width=0", "model.width must be at least 1"),
        ("model.drop_path=1", "model.drop_path=1.0"),
        ("modalities.image.patch=5", "size 24 is not a multiple of patch 5"),
        ("modalities.image.patch=0", "must be >= 1"),
        ("tasks.digits.batch=0", "batch must be at least 1"),
        ("tasks.digits.share=0", "share must be positive"),
        ("tasks.glyphs.batch=1", "nothing to choose among"),
    ],
)
def test_a_mistaken_key_or_value_is_refused_in_one_line_that_says_what_fits(key, message):
    with pytest.raises(UserError) as caught:
        changed(key)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_saved_recipe_is_the_same_recipe(name):
    recipe = load_recipe(name)
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


def test_a_changed_recipe_keeps_its_changes_when_saved(tmp_path):
    recipe = changed("steps=7", "modalities.audio.mels=20", "modalities.audio.patch=[20, 4]", "tasks.tones.batch=6")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(to_json(recipe)))
    loaded = load_recipe(str(path))
    assert loaded == recipe
    assert loaded != load_recipe("demo")


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown recipe 'dmeo'; did you mean 'demo'\? \(or give a .py file\)"):
        load_recipe("dmeo")


RECIPE = """
from __future__ import annotations
from dataclasses import dataclass
from generalist.data.stream.source import Records
from generalist.recipe.recipe import Recipe
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.text.summary import Summary

@dataclass
class Coin:
    sides: int = 2
    def open(self, split):
        return Records([{"id": f"{split}/0", "label": 0}], {"classes": ["head", "tail"]})

def recipe():
    return Recipe(name="coin", about="a coin", steps=5, modalities={"summary": Summary()},
                  tasks=[Classify(name="coin", source=Coin())])
"""


def test_a_recipe_file_may_bring_its_own_source_and_is_saved_with_it(tmp_path):
    path = tmp_path / "coin_recipe.py"
    path.write_text(RECIPE)
    recipe = load_recipe(str(path))
    override(recipe, "tasks.coin.source.sides=3")
    assert recipe.tasks[0].source.sides == 3
    saved = to_json(recipe)
    assert saved["tasks"][0]["source"]["class"] == "coin_recipe:Coin"
    assert from_json(json.loads(json.dumps(saved))) == recipe


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("none.py", None, "no recipe file"),
        ("none.json", None, "no recipe file"),
        ("empty_recipe.py", "", "defines no function `recipe`"),
        ("broken_recipe.py", "def recipe(:\n", "cannot be run (SyntaxError"),
        ("failing_recipe.py", "1 / 0\n", "cannot be run (ZeroDivisionError: division by zero)"),
        ("lost_recipe.py", "import nowhere_to_be_found\n", "cannot be run (ModuleNotFoundError"),
        ("wrong_recipe.py", "def recipe():\n    return 7\n", "returns int, not a Recipe"),
        ("greedy_recipe.py", "def recipe(size):\n    return size\n", "cannot be made (TypeError"),
        ("json.py", "def recipe():\n    return 7\n", "a module 'json' is in use already; rename the file"),
        ("text.json", "{", "is not JSON"),
        ("bytes.json", b"\xff\xfe\x00", "is not JSON"),
        ("deep.json", "[" * 100_000, "is not JSON"),
        ("list.json", "[]", "does not hold a recipe"),
        ("other.json", '{"class": "generalist.recipe.specs:ModelSpec"}', "does not hold a recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_recipe(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"class": "os:system"}, "which is not a dataclass"),
        ({"class": "builtins:eval"}, "which is not a dataclass"),
        ({"class": "subprocess:Popen", "args": "true"}, "which is not a dataclass"),
        ({"class": "nowhere:Thing"}, "if it is your own file, put its folder in PYTHONPATH"),
        ({"class": "generalist.recipe.recipe:Recipee"}, "cannot be imported"),
        ({"class": 7}, "cannot be imported"),
        ({"class": ""}, "cannot be imported"),
        ({"class": ".x:Y"}, "cannot be imported"),
        ({"class": "generalist.recipe.specs:ModelSpec", "widht": 3}, "does not fit this version"),
        ({"class": "generalist.tokenizers_mod.vision.image:Image", "size": "large"}, "does not fit this version"),
        (
            {"class": "generalist.tokenizers_mod.vision.image:Image", "size": 24, "patch": 5},
            "size 24 is not a multiple of patch 5",
        ),
    ],
)
def test_a_saved_recipe_cannot_name_anything_but_dataclasses_that_fit(values, message):
    with pytest.raises(UserError) as caught:
        from_json([{"x": values}])
    assert message in str(caught.value)


def test_a_value_that_json_cannot_hold_is_refused_when_saved():
    recipe = load_recipe("demo")
    recipe.about = b"bytes"
    with pytest.raises(UserError, match="JSON values and dataclasses only, not bytes"):
        to_json(recipe)


def test_two_tasks_of_one_name_are_refused():
    recipe = load_recipe("demo")
    recipe.tasks[1].name = recipe.tasks[0].name
    with pytest.raises(UserError, match="two tasks are named 'digits'"):
        recipe.check()


@pytest.mark.parametrize("name", ["demo", "uni_perceiver_tiny", "detect_tiny"])
def test_every_key_of_a_recipe_is_told_with_its_type_and_a_line(name):
    found = {key.path: key for key in described(load_recipe(name))}
    assert not [path for path, key in found.items() if not key.about]
    rate = found["optimizer.lr"]
    assert (rate.kind, rate.default, rate.about) == ("float", 1e-3, "highest learning rate")
    assert found["validation.patience"].about.startswith("looks in a row without a better score")
    assert found["model.moe.parts"].kind == "str" and found["name"].needed


def test_keys_are_printed_by_their_beginning_and_a_misspelt_one_names_the_nearest(capsys):
    assert main(["recipe", "demo", "optimizer.lr", "validation"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("optimizer.lr = ") and "float [" in said[0]
    assert [line.split()[0] for line in said[2:]] == [f"validation.{k}" for k in ("every", "cost", "patience", "best")]
    assert main(["recipe", "demo", "optimiser"]) == 2
    assert "optimizer" in capsys.readouterr().err
