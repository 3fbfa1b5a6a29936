"""The losses of small runs are those that are written down, and the runs leave no modality and no task out."""

import json
import math

import golden
import pytest

from generalist.tasks.registry.table import TASKS
from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class
from generalist.tokenizers_mod.pretrained.sentence import Sentence


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in golden.RUNS.items()}


@pytest.mark.parametrize("name", golden.RUNS)
def test_the_loss_of_every_step_is_that_of_the_file(recipes, name):
    expected = json.loads(golden.FILE.read_text())[name]
    found = golden.losses(recipes[name])
    assert [task for task, _ in found] == [task for task, _ in expected]
    assert {task for task, _ in found} == {task.name for task in recipes[name].tasks}  # each had a step
    assert [loss for _, loss in found] == pytest.approx(
        [float.fromhex(loss) for _, loss in expected], rel=golden.MARGIN
    )


def test_the_runs_use_every_modality_and_every_kind_of_task(recipes):
    used = {type(modality) for recipe in recipes.values() for modality in recipe.modalities.values()}
    assert used == {modality_class(name) for name in MODALITIES} - {Sentence}  # whose encoder is no part of a model
    assert {task.kind for recipe in recipes.values() for task in recipe.tasks} == set(TASKS)
    spec = recipes["rarer"].model
    assert (spec.moe.placement, spec.moe.parts) == ("all", "both")
    assert spec.prompts and spec.linear_heads and spec.drop_path


def test_a_loss_that_moved_by_its_last_bit_is_named():
    before = {"a": [["x", (0.5).hex()], ["x", (0.25).hex()]], "b": [["y", (1.0).hex()]]}
    assert golden.differences(before, before) == []
    after = {**before, "a": [["x", (0.5).hex()], ["x", math.nextafter(0.25, 1).hex()]]}
    (line,) = golden.differences(before, after)
    assert line.startswith("a: step 1")
    assert golden.differences(before, {"a": before["a"]}) == ["b: missing"]
    assert golden.differences(before, {**before, "b": []}) == ["b: another number of steps"]
