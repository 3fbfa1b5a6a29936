"""What mixers reach on real data: kept cells, the page's table, sets made from recordings, cells that go on."""

import json

import numpy as np
import pytest

from generalist.scripts import mixers_real_data, mixers_sets


def test_the_page_shows_what_is_kept():
    kept = json.loads(mixers_real_data.RESULT.read_text())
    assert mixers_real_data.markdown(kept) in mixers_real_data.PAGE.read_text(encoding="utf-8")
    ours = {*mixers_sets.SETS, "digits"}
    assert all(key.count("/") == 2 and key.partition("/")[0] in ours for key in kept)


def test_mean_and_spread_are_over_seeds():
    kept = {f"digits/pool/{seed}": {"metrics": {"accuracy": value}} for seed, value in enumerate((0.5, 0.7))}
    kept |= {"etth1/joint/0": {"metrics": {"mse": 0.4, "accuracy": 1.0}, "samples": 1200}}
    _, pool, joint = mixers_real_data.rows(kept)
    assert pool == ("digits", "pool", "accuracy", "0.600", "0.100", "2", "", "")
    assert joint[:7] == ("etth1", "joint", "mse", "0.400", "0.000", "1", "1,200")


def test_recordings_are_joined_with_the_next_of_their_group_and_class():
    part = lambda group, label, n: (group, label, np.full(n, n))  # noqa: E731
    found = mixers_sets.joined([part("1", "a", 3), part("1", "b", 4), part("1", "a", 5), part("2", "a", 2)], 7)
    assert found[0]["values"].tolist() == [3, 3, 3, 5, 5, 5, 5]
    assert found[1]["values"].tolist() == [4, 4, 4, 4, 4, 4, 4]  # alone: again
    assert found[2]["values"].tolist() == [5, 5, 5, 5, 5, 3, 3]  # the first behind the last
    assert found[3]["values"].tolist() == [2, 2, 2, 2, 2, 2, 2]
    assert [record["label"] for record in found] == ["a", "b", "a", "a"]


def test_finished_cells_are_not_run_again_and_seeds_take_turns(tmp_path, monkeypatch, capsys):
    out, ran = tmp_path / "kept.json", []
    monkeypatch.setattr(mixers_real_data.systems_digits, "EVERY", ["pool", "hyena"])
    monkeypatch.setattr(mixers_real_data, "digits", lambda kind, seed: ran.append((kind, seed)) or cell)
    cell = {"metrics": {"accuracy": 0.5}}
    command = ["x", "--sets", "digits", "--out", str(out), "--seeds"]
    monkeypatch.setattr("sys.argv", [*command, "0"])
    mixers_real_data.main()
    monkeypatch.setattr("sys.argv", [*command, "0", "1"])
    mixers_real_data.main()
    assert ran == [("pool", 0), ("hyena", 0), ("pool", 1), ("hyena", 1)]
    assert set(json.loads(out.read_text())) == {f"digits/{kind}/{seed}" for kind, seed in ran}


@pytest.mark.parametrize("variant", ["attention", "hybrid"])
def test_a_cell_trains_within_its_time(variant, monkeypatch):
    made = mixers_sets.made("digits", 0, *small(variant))
    found = mixers_real_data.trained(made, 0.2, 0)
    assert found["steps"] >= 1 and found["samples"] == 8 * found["steps"]
    assert 0 <= found["metrics"]["accuracy"] <= 1


def small(variant):
    from generalist.data.sources.embedded import Embedded
    from generalist.recipe.specs import ModelSpec
    from generalist.tasks.kinds.classify import Classify
    from generalist.tokenizers_mod.vision.image import Image

    task = Classify(name="digits", source=Embedded("digits"), inputs={"image": "image"}, batch=8)
    model = ModelSpec(width=16, layers=4, heads=2, hidden=24, **mixers_sets.CIFAR[variant])
    return task, {"image": Image(size=8, patch=4, channels=1)}, model, 1e-3
