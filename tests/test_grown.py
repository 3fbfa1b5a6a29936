"""A resume on data that changed says in one line what changed and how to go on, before the first step."""

import signal

import pytest

from generalist.data.base.errors import UserError
from generalist.data.sources.tabular import Tabular
from generalist.recipe.recipe import Recipe
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.train.checkpoints import checkpoint
from tests.test_resume import stop_at


def write(path, names, count=120, extra=""):
    rows = [f"{i % len(names) + i % 10 / 20},{i % 7}.5,{names[i % len(names)]}\n" for i in range(count)]
    path.write_text("x,y,label\n" + "".join(rows) + extra)


def recipe(path, **more):
    text = {"tokenizer": "", "learn": 270, "max_length": 8, "positions": 8}
    made = build_modalities({"summary": {}, "text": text, "table": {}})
    task = Classify(name="fit", source=Tabular(str(path), label="label"), inputs={"table": "row"}, batch=8)
    found = Recipe(name="grown", about="", tasks=[task], modalities=made, steps=4, baseline=False, **more)
    found.model.width, found.model.layers, found.model.heads, found.model.hidden = 16, 1, 2, 16
    found.checkpoint.every, found.engine.device, found.optimizer.warmup = 0, "cpu", 1
    return found


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    write(folder / "t.csv", ["low", "mid"])
    with pytest.MonkeyPatch.context() as patch:
        stop_at(2, patch, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train_run(recipe(folder / "t.csv"), folder / "out", quiet=True)
    return folder


@pytest.mark.parametrize(
    "names, extra, told",
    [
        (["low", "mid", "high"], "", r"task fit: 2 -> 3 classes \(new 'high'\)"),
        (["low", "top"], "", r"task fit: 2 -> 2 classes \(new 'top'; gone 'mid'\)"),
        (["low", "mid"], "".join(f"99.5,{i}.5,low\n" for i in range(40)), r"table: schemas of fit \(columns x"),
    ],
)
def test_what_changed_is_named_with_the_way_on(stopped, names, extra, told):
    write(stopped / "t.csv", names, extra=extra)
    with pytest.raises(UserError, match=told) as caught:
        train_run(recipe(stopped / "t.csv"), stopped / "out", resume=True, quiet=True)
    assert "\n" not in str(caught.value)
    saved = checkpoint.latest(stopped / "out")[1] / "model"
    assert f"init={saved} and another --out" in str(caught.value)


def test_the_way_on_that_is_named_works_and_an_unchanged_run_is_resumed(stopped, tmp_path, capsys):
    saved = checkpoint.latest(stopped / "out")[1] / "model"
    write(stopped / "t.csv", ["low", "mid", "high"])
    metrics = train_run(recipe(stopped / "t.csv", init=str(saved)), tmp_path / "new", quiet=True)
    assert metrics["tasks"]["fit"]["n_test"] > 0
    write(stopped / "t.csv", ["low", "mid"])
    train_run(recipe(stopped / "t.csv"), stopped / "out", resume=True, quiet=True)
    assert "the data changed" not in capsys.readouterr().err
