"""`generalist fit`: what it decides of one's own data, the recipe that it writes, the answers that it gives."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

import generalist
from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.fitting.answers import answer_of
from generalist.fitting.columns import look
from generalist.fitting.decide import recipe_of
from generalist.fitting.parts import Ask
from generalist.recipe.json import to_json
from generalist.recipe.load import load_recipe

QUICK = ["--time", "4s", "--quiet", "--no-baseline", "--no-encoder"]


def rows(n: int = 240, seed: int = 0) -> pandas.DataFrame:
    """A price that hangs on a number, a category and a word of a text."""
    rng = np.random.default_rng(seed)
    size, place, good = rng.normal(size=n), rng.choice(["town", "land"], n), rng.random(n) < 0.5
    price = 3 * size + 4 * (place == "town") + 5 * good + 20
    words = [f"a {'lovely' if g else 'gloomy'} house with {i} windows seen" for i, g in enumerate(good)]
    days = pandas.date_range("2020-01-01", periods=n).astype(str)
    shown = {"Id": range(n), "size": size, "place": place, "built": days, "words": words, "same": "x", "none": None}
    return pandas.DataFrame(shown | {"price": price, "dear": np.where(price > np.median(price), "yes", "no")})


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A fitted table and its folder; tests read it."""
    folder = tmp_path_factory.mktemp("house")
    rows().drop(columns="dear").to_csv(folder / "train.csv", index=False)
    out = folder / "run"
    assert main(["fit", str(folder / "train.csv"), "--label", "price", "--out", str(out), *QUICK, "--time", "8s"]) == 0
    return folder, out


def decided(path, **ask):
    """The recipe and its parts, nothing trained."""
    return recipe_of([Ask(str(path), **ask)], "test", 0, 60.0, encoders=False)


def test_every_column_is_told_for_what_it_is():
    import pyarrow as pa

    found = {c.name: c.kind for c in look(pa.Table.from_pandas(rows()), None)}
    assert found == {
        "Id": "id",
        "size": "number",
        "place": "category",
        "built": "date",
        "words": "text",
        "same": "constant",
        "none": "empty",
        "price": "number",
        "dear": "category",
    }


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["a", "b", "c"] * 10, "classes", []),
        ([True, False] * 10, "classes", []),
        ([0, 1] * 10, "classes", ["0", "1"]),
        ([3, 4, 5, 10] * 10, "classes", ["3", "4", "5", "10"]),
        (list(range(100)), "number", []),
        ([0.5, 1.5, 2.5] * 10, "number", []),
        (["a|b", "b", "c|a", "c", "b|c"] * 4, "names", []),
        ([["a"], ["a", "b"], []] * 4, "names", []),
        (["Paris, France", "Rome, Italy", "Bonn, Germany", "Oslo, Norway"] * 4, "classes", []),
    ],
)
def test_a_label_says_which_kind_of_answer_it_asks_for(values, kind, classes):
    found = answer_of("y", values)
    assert (found.kind, found.classes) == (kind, classes)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (["a"] * 20, "nothing to learn"),
        ([1.0] * 20, "nothing to learn"),
        ([None, None], "no row has a value"),
        ([f"text number {i}" for i in range(40)], "are no classes"),
    ],
)
def test_a_label_that_teaches_nothing_is_said_in_one_line(values, word):
    with pytest.raises(UserError, match=word) as error:
        answer_of("y", values)
    assert "\n" not in str(error.value)


def test_a_label_that_counts_the_rows_is_no_answer():
    with pytest.raises(UserError, match="names the rows"):
        answer_of("id", list(range(40)))


def test_what_is_decided_is_a_recipe_that_trains_to_the_same_bytes(house, monkeypatch, tmp_path):
    _, out = house
    monkeypatch.delitem(sys.modules, "recipe", raising=False)
    again = tmp_path / "again"
    assert main(["train", str(out / "recipe.py"), "--out", str(again), "--quiet"]) == 0
    for name in ("model/model.safetensors", "recipe.json", "model/config.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    text = (out / "recipe.py").read_text()
    assert "keep=['size', 'place', 'built']" in text and "'text': 'words'" in text


def test_a_regression_has_no_words_but_those_of_its_text(tmp_path):
    rows().drop(columns=["words", "dear"]).to_csv(tmp_path / "t.csv", index=False)
    recipe, _ = decided(tmp_path / "t.csv", label="price")
    assert list(recipe.modalities) == ["summary", "table", "number"]


def test_new_rows_are_answered_in_order_with_an_interval(house, tmp_path):
    _, out = house
    new = rows(40, seed=1).drop(columns="dear")
    new["Id"] = [f"N{900 - i}" for i in range(40)]
    new.loc[3, "size"] = None
    new.to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(out), str(tmp_path / "new.csv"), "--out", str(tmp_path / "a.csv")]) == 0
    found = pandas.read_csv(tmp_path / "a.csv")
    assert list(found.columns) == ["id", "Id", "answer", "low", "median", "high"]
    assert list(found["Id"]) == list(new["Id"])  # what names a row is carried along, in the rows' order
    assert (found["low"] < found["median"]).all() and (found["median"] < found["high"]).all()
    sound = np.arange(40) != 3
    assert np.corrcoef(found["answer"][sound], new["price"][sound])[0, 1] > 0.5
    new.drop(columns="size").to_csv(tmp_path / "lacks.csv", index=False)
    assert main(["predict", str(out), str(tmp_path / "lacks.csv")]) == 2


def test_the_table_is_there_whatever_the_split(house):
    _, out = house
    for name in ("metrics.json", "predictions.json"):
        json.loads((out / name).read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    line = json.loads((out / "metrics.json").read_text())["tasks"]["price"]
    assert line["metric"] == "rmse" and line["n_test"] > 20 and line["value"] < 4.5


def test_a_frame_is_learnt_from_python(tmp_path):
    frame = rows(160)[["size", "place", "dear"]]
    found = generalist.fit(frame, label="dear", time=3, encoders=False, out=tmp_path / "run", baseline=False)
    assert found.classes == ["no", "yes"] and found.path == tmp_path / "run"
    p, said = found.predict_proba(frame), found.predict(frame.drop(columns="dear"))
    assert p.shape == (160, 2) and np.allclose(p.sum(1), 1)
    assert list(said) == [found.classes[i] for i in p.argmax(1)]
    assert "accuracy" in found.report()
    assert load_recipe(str(tmp_path / "run" / "recipe.json")).tasks[0].source.path.endswith("rows.parquet")


def test_a_test_file_may_have_another_category_and_another_column(tmp_path, capsys):
    rows(120).drop(columns=["words", "Id"]).to_csv(tmp_path / "train.csv", index=False)
    test = rows(30, seed=1).drop(columns=["words", "Id"]).assign(extra=1.5)
    test.loc[:4, "place"] = "moon"
    test.to_csv(tmp_path / "test.csv", index=False)
    out = tmp_path / "run"
    words = ["fit", str(tmp_path / "train.csv"), "--label", "dear", "--test", str(tmp_path / "test.csv")]
    assert main([*words, "--out", str(out), *QUICK]) == 0
    assert json.loads((out / "metrics.json").read_text())["tasks"]["dear"]["n_test"] == 30
    assert main(["predict", str(out), str(tmp_path / "test.csv"), "--out", str(tmp_path / "a.csv")]) == 0
    told = capsys.readouterr().err
    assert "place: 5 of 30 rows say what was never learnt (moon)" in told and "extra: not read" in told
    assert "left out of row" not in told


def test_ten_rows_are_enough_for_a_table_and_five_are_said_to_be_too_few(tmp_path, capsys):
    rows(10)[["size", "place", "dear"]].to_csv(tmp_path / "ten.csv", index=False)
    assert main(["fit", str(tmp_path / "ten.csv"), "--label", "dear", "--out", str(tmp_path / "r"), *QUICK]) == 0
    rows(5)[["size", "place", "dear"]].to_csv(tmp_path / "five.csv", index=False)
    assert main(["fit", str(tmp_path / "five.csv"), "--label", "dear", "--out", str(tmp_path / "s"), *QUICK]) == 2
    assert "too few" in capsys.readouterr().err


def test_classes_that_a_parquet_file_names_keep_their_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"x": {"dtype": "float32", "_type": "Value"}, "kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"x": np.random.default_rng(0).normal(size=60), "kind": [0, 1, -1] * 20})
    about = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), tmp_path / "t.parquet")
    recipe, parts = decided(tmp_path / "t.parquet", label="kind")
    assert recipe.tasks[0].open("train").info["classes"] == ["cat", "dog"]
    assert "2 classes: cat, dog" in parts[0].told[0] and "20 rows without a label" in parts[0].told[0]


def test_a_column_that_gives_the_answer_away_is_told(tmp_path):
    frame = rows(200)[["size", "place", "dear"]].assign(code=lambda f: (f["dear"] == "yes") * 7)
    frame.to_csv(tmp_path / "t.csv", index=False)
    _, parts = decided(tmp_path / "t.csv", label="dear")
    assert [line for line in parts[0].told if "LOOK: code alone tells dear" in line]
    frame.drop(columns="code").to_csv(tmp_path / "t.csv", index=False)
    assert "LOOK" not in " ".join(decided(tmp_path / "t.csv", label="dear")[1][0].told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.csv", "--label", "y"], "no data nowhere.csv"),
        (["t.csv"], "say which column is the answer"),
        (["t.csv", "--label", "prise"], "did you mean 'price'"),
        (["t.csv", "--label", "same"], "nothing to learn"),
        (["t.csv", "--label", "Id"], "names the rows"),
        (["t.csv", "--label", "words"], "are no classes"),
        (["t.csv", "--retrieve", "words", "size"], "give texts, pictures or sounds"),
        (["t.csv", "--forecast", "200", "--date", "built"], "too few to forecast 200"),
        (["t.csv", "--label", "price", "--time", "soon"], "give one such as 90s"),
        (["empty"], "no files"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_the_first_step(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    rows(60).to_csv("t.csv", index=False)
    assert main(["fit", *words, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def pictures(folder, count: int = 14) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.normal(size=(16, 16, 3)) * 30
            Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype("uint8")).save(folder / name / f"{i}.png")


def test_a_joint_model_of_a_folder_a_table_with_pictures_and_series(tmp_path):
    pictures(tmp_path / "photos")
    kinds = ["red", "blue"] * 14
    files = [f"photos/{k}/{i // 2}.png" for i, k in enumerate(kinds)]
    files[2], files[5], files[8], files[11] = None, "photos/gone.png", None, "photos/lost.png"
    pandas.DataFrame({"photo": files, "tone": kinds, "n": range(28)}).to_csv(tmp_path / "shots.csv", index=False)
    hours = pandas.date_range("2021-01-01", periods=160, freq="h").astype(str)
    wave = np.sin(np.arange(160) / 24 * 2 * np.pi)
    loads = [pandas.DataFrame({"when": hours, "meter": m, "load": wave + m}) for m in (0, 1)]
    pandas.concat(loads).to_csv(tmp_path / "load.csv", index=False)
    out = tmp_path / "run"
    words = ["fit", str(tmp_path / "shots.csv"), "--label", "tone", "+", str(tmp_path / "photos"), "+"]
    words += [str(tmp_path / "load.csv"), "--forecast", "6", "--group", "meter", "--out", str(out), *QUICK]
    assert main(words) == 0
    lines = json.loads((out / "metrics.json").read_text())["tasks"]
    assert {n: line["metric"] for n, line in lines.items()} == {"tone": "accuracy", "photos": "accuracy", "load": "mae"}
    assert not [n for n, line in lines.items() if "error" in line]
    assert (
        main(["predict", str(out), str(tmp_path / "shots.csv"), "--task", "tone", "--out", str(tmp_path / "a.csv")])
        == 0
    )
    assert len(pandas.read_csv(tmp_path / "a.csv")) == 28
    # the next steps of each series, in its own units: a sine of amplitude one around 0 and around 1
    words = ["predict", str(out), str(tmp_path / "load.csv"), "--task", "load", "--out", str(tmp_path / "f.csv")]
    assert main(words) == 0
    ahead = pandas.read_csv(tmp_path / "f.csv")
    assert list(ahead["step"]) == [1, 2, 3, 4, 5, 6] * 2 and list(ahead["id"]) == [0] * 6 + [1] * 6
    wave = np.sin(np.arange(160, 166) / 24 * 2 * np.pi)
    assert np.abs(ahead["answer"] - np.concatenate([wave, wave + 1])).max() < 0.6
    assert (ahead["low"] <= ahead["high"]).all()


def test_pairs_with_a_side_missing_are_left_out(tmp_path):
    pictures(tmp_path / "photos")
    files = [f"photos/{k}/{i}.png" for k in ("red", "blue") for i in range(14)]
    words = [f"a {'crimson' if 'red' in f else 'azure'} square number {i}" for i, f in enumerate(files)]
    for i in range(0, 28, 3):
        files[i] = None
    pandas.DataFrame({"photo": files, "caption": words}).to_csv(tmp_path / "pairs.csv", index=False)
    recipe, _ = decided(tmp_path / "pairs.csv", retrieve=("photo", "caption"))
    task = recipe.tasks[0]
    assert task.inputs == {"image": "photo"} and task.partners == {"text": "caption"}
    assert sum(len(task.open(split)) for split in ("train", "val", "test")) == 18
    assert recipe.modalities["image"].size == 16 and recipe.modalities["image"].channels == 3


def test_a_stopped_fit_leaves_the_table_of_what_it_learnt(tmp_path, monkeypatch):
    from generalist.run import attempt

    whole = attempt.stop_flag
    rows(200)[["size", "place", "price"]].to_csv(tmp_path / "t.csv", index=False)

    def stopped(*args, **kwargs):
        held = whole(*args, **kwargs)

        class Flag:
            def __enter__(self):
                asked = held.__enter__()
                asked.append(2)
                return asked

            def __exit__(self, *error):
                return held.__exit__(*error)

        return Flag()

    monkeypatch.setattr("generalist.run.train.stop_flag", stopped)
    out = tmp_path / "run"
    assert main(["fit", str(tmp_path / "t.csv"), "--label", "price", "--out", str(out), *QUICK]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tasks"]["price"]["value"] > 0 and (out / "model" / "config.json").is_file()
    assert main(["predict", str(out), str(tmp_path / "t.csv"), "--out", str(tmp_path / "a.csv")]) == 0


def test_the_recipe_is_the_users_own_and_stays_when_a_run_is_replaced(house):
    folder, out = house
    before = to_json(load_recipe(str(out / "recipe.json")))
    assert main(["fit", str(folder / "train.csv"), "--label", "price", "--out", str(out), *QUICK]) == 2
    assert to_json(load_recipe(str(out / "recipe.json"))) == before


def test_a_label_is_taken_for_what_the_user_says():
    assert answer_of("y", [1, 2, 3] * 20, "number").kind == "number"
    assert answer_of("y", [0.5 * i for i in range(40)], "classes").kind == "classes"
    with pytest.raises(UserError, match="'high' is no number"):
        answer_of("y", [1, "high"] * 20, "number")
    with pytest.raises(UserError, match="did you mean 'number'"):
        answer_of("y", [1, 2] * 20, "numbr")


@pytest.mark.parametrize("file", ["t.csv", "t.parquet", "t.csv.gz"])
def test_of_a_huge_table_every_few_rows_are_learnt_and_that_is_said(file, tmp_path, monkeypatch):
    from generalist.fitting.inputs import large

    frame = rows(900)[["size", "words", "price"]].assign(words=lambda f: f["words"] + ",\n again")
    frame.to_parquet(tmp_path / file) if file.endswith("parquet") else frame.to_csv(tmp_path / file, index=False)
    monkeypatch.setattr(large, "LEAST", 10)
    assert large.thinned(str(tmp_path / file), tmp_path / "out") == (str(tmp_path / file), "")
    monkeypatch.setattr(large, "MOST", 100)
    thin, said = large.thinned(str(tmp_path / file), tmp_path / "out")
    step = int(said.partition("every ")[2].partition("th,")[0])
    read = pandas.read_parquet(thin) if file.endswith("parquet") else pandas.read_csv(thin)
    assert step >= 9 and len(read) == len(range(0, 900, step))
    assert np.allclose(read["price"], frame["price"][::step]) and list(read["words"]) == list(frame["words"][::step])


@pytest.mark.parametrize("missing", [0.3, 1.0])
def test_a_picture_column_with_gaps_is_read_where_there_is_a_picture(missing, tmp_path):
    pictures(tmp_path / "photos", 20)
    kinds = ["red", "blue"] * 20
    files = [f"photos/{k}/{i // 2}.png" for i, k in enumerate(kinds)]
    gone = np.random.default_rng(0).random(40) < missing
    shown = [
        None if off and i % 2 else "photos/gone.png" if off else f
        for i, (f, off) in enumerate(zip(files, gone, strict=True))
    ]
    pandas.DataFrame({"photo": shown, "n": range(40), "tone": kinds}).to_csv(tmp_path / "t.csv", index=False)
    if missing == 1.0:
        with pytest.raises(UserError, match="none of the pictures can be read"):
            decided(tmp_path / "t.csv", label="tone")
    else:
        recipe, parts = decided(tmp_path / "t.csv", label="tone")
        told = " ".join(parts[0].told)
        assert recipe.tasks[0].inputs["image"] == "photo" and "files not there" in told
        train = recipe.tasks[0].open("train")
        assert any(train[i]["photo"] is None for i in range(len(train)))


def test_a_clock_with_gaps_and_two_zones_is_one_grid(tmp_path):
    whole = pandas.date_range("2021-03-01", periods=300, freq="h", tz="UTC")
    kept = whole.delete(list(range(100, 110)))
    stamps = [str(t.tz_convert("Europe/Paris")) if i % 2 else str(t) for i, t in enumerate(kept)]
    wave = np.sin(np.array([(t - whole[0]).total_seconds() / 3600 for t in kept]) / 24 * 2 * np.pi)
    pandas.DataFrame({"when": stamps, "load": wave}).to_csv(tmp_path / "t.csv", index=False)
    recipe, parts = decided(tmp_path / "t.csv", forecast=6)
    assert "time when, a step of 3600 s; a season is 24 steps" in " ".join(parts[0].told)
    test = recipe.tasks[0].open("test")
    past = np.asarray(test[len(test) - 1]["past"]).ravel()
    # the last hours, one after another although every other stamp is written in another zone
    hours = np.arange(300 - 6 - len(past), 300 - 6)
    assert np.corrcoef(past, np.sin(hours / 24 * 2 * np.pi))[0, 1] > 0.99999


def test_a_run_of_pairs_is_searched_and_one_of_rows_asked():
    from generalist.commands.own.fit import onward

    out = Path("runs/r")
    assert [line.split()[3] for line in onward(out, [False])] == ["predict"]
    assert [line.split()[2] for line in onward(out, [True])] == ["index"]
    assert [line.split(":")[0] for line in onward(out, [True, False])] == ["search", "new rows"]
