"""The README's table, the header of the demo's recipe and the kept results are one thing."""

import json

import pytest

from generalist.data.base.errors import UserError
from generalist.recipes import demo
from generalist.scripts import demo_table


def test_the_readme_and_the_recipe_say_what_is_kept():
    results = demo_table.kept()
    assert demo_table.readme_table(results) in demo_table.README.read_text(encoding="utf-8"), demo_table.__doc__
    assert demo_table.header(results) in demo_table.RECIPE.read_text(encoding="utf-8"), demo_table.__doc__


def test_what_is_kept_is_of_the_demo_as_it_stands():
    results, recipe = demo_table.kept(), demo.demo()
    assert results["steps"] == recipe.steps
    assert list(results["tasks"]) == [task.name for task in recipe.tasks] == list(demo_table.SHOWS)
    for task in recipe.tasks:
        line = results["tasks"][task.name]
        assert (line["metric"], line["higher_is_better"]) == (task.metric, task.higher_is_better)
        test = task.source.open("test")
        assert (line["n_test"], line["synthetic"]) == (len(test), bool(test.info.get("synthetic")))


def test_another_run_changes_both_and_is_read_back(tmp_path):
    results = demo_table.kept()
    results["tasks"]["wine"] |= {"value": 0.5, "baseline": 0.75}
    readme = demo_table.in_readme(demo_table.README.read_text(encoding="utf-8"), results)
    assert "| wine: wine (table) | accuracy | **0.5** | 0.389 | 0.75 (logistic regression) | no | 36 |" in readme
    assert "wine          accuracy 0.5" in demo_table.in_recipe(demo_table.RECIPE.read_text(encoding="utf-8"), results)
    metrics = results | {"seconds": {"train": 1.0}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert demo_table.from_run(tmp_path)["tasks"] == results["tasks"]
    metrics["tasks"]["wine"]["value"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="no result of wine"):
        demo_table.from_run(tmp_path)
