"""`fit` begins from the package's starter where that knows more of the data, and says what it found."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from generalist.cli import main
from generalist.fitting.decide import copied, recipe_of
from generalist.fitting.inputs.beginning import better, from_starter
from generalist.fitting.parts import Ask
from generalist.hf.predict import load
from generalist.recipe.json import to_json
from generalist.shipped import path
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.libraries import zoo
from generalist.tokenizers_mod.text.text import Text
from generalist.train.prepare import prepare
from generalist.train.start.initial import known, load_initial


def folder(place, labels, pictures):
    for i, (label, pixels) in enumerate(zip(labels, pictures, strict=True)):
        (place / f"digit {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((32, 32)).save(place / f"digit {label}" / f"{i}.png")
    return place


@pytest.fixture(scope="module")
def drawn():
    found = load_digits()
    return found.target[:300], (255 - found.images[:300] * 15.9).astype(np.uint8)


@pytest.fixture(scope="module")
def digits(drawn, tmp_path_factory):
    return folder(tmp_path_factory.mktemp("digits"), *drawn)


@pytest.fixture
def alone(monkeypatch):
    """No pretrained encoder on the machine but what is in the package."""
    monkeypatch.setattr(zoo, "find_spec", lambda module: None)


def test_it_begins_from_the_starter_where_that_tells_the_pictures_apart(digits, alone, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["fit", str(digits), "--time", "40s", "--no-baseline", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "begins from the package's starter: a linear map of it is right on 0." in said
    assert "RANDOM" not in said and said.count("init starter") == 1 and "unexpected" not in said
    assert 'init="starter"' in (out / "recipe.py").read_text() or "init='starter'" in (out / "recipe.py").read_text()
    picture = str(next((digits / "digit 3").iterdir()))
    assert main(["predict", str(out), "--image", picture]) == 0
    assert "digit" in capsys.readouterr().out
    longer = ["steps=80", "optimizer.warmup=8", "baseline=false", "combine=false"]  # however fast the machine is
    assert main(["train", str(out / "recipe.json"), *longer, "--out", str(tmp_path / "longer"), "--quiet"]) == 0
    line = next(iter(json.loads((tmp_path / "longer" / "metrics.json").read_text())["tasks"].values()))
    assert line["value"] > 0.6  # a tenth is chance; measured .9


def test_labels_that_nothing_tells_are_no_reason_to(drawn, alone, tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, len(drawn[0]))
    recipe, parts = recipe_of([Ask(str(folder(tmp_path / "noise", labels, drawn[1])))], "noise", 0, 120.0)
    before = to_json(recipe)
    found = better(recipe, parts, 120.0)
    assert found.recipe is recipe and to_json(recipe) == before
    assert found.told.startswith("does not begin from the package's starter")


def test_too_little_time_or_another_kind_of_data_compares_nothing(digits, alone, tmp_path):
    recipe, parts = recipe_of([Ask(str(digits))], "digits", 0, 20.0)
    assert better(recipe, parts, 20.0).told == ""
    assert better(recipe, [*parts, *parts], 120.0).told == ""  # a joint model
    (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(90)))
    table, _ = recipe_of([Ask(str(tmp_path / "t.csv"), label="y")], "t", 0, 60.0)
    assert from_starter(table) is None


def test_a_modality_of_another_class_under_a_name_begins_anew(digits, alone):
    recipe, _ = recipe_of([Ask(str(digits))], "digits", 0, 60.0)
    other = from_starter(recipe)
    assert other is not None and type(other.modalities["text"]) is Text
    assert set(known(other.modalities, path("starter"))) == {"image", "summary"}
    prepared = prepare(copied(other))
    model = prepared.model(other)
    report = load_initial(model, path("starter"))
    assert any("tokenizers.text.token.weight" in note for note in report.notes)
    taken = load("starter")[0].state_dict()
    for name, value in model.state_dict().items():
        if name.startswith(("encoder.", "tokenizers.image.")):
            assert value.equal(taken[name]), name


@pytest.mark.parametrize("way", ["stages", "tokenizers_mod.pretrained.stages.stages:Stages"])
def test_a_class_is_known_by_whatever_path_a_folder_gives(way, tmp_path):
    config = json.loads((path("starter") / "config.json").read_text())
    image = config["modalities"]["image"]
    own = {"image": build_modalities({"image": image})["image"]}
    image["class"] = way
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert set(known(own, tmp_path)) == {"image"}
