"""Local files as records described by fields: slices, splits that never meet, every set in the shared folder."""

import io

import numpy as np
import pandas
import pytest
from PIL import Image as PIL
from scipy.sparse import csr_array

from generalist.data.base.errors import UserError
from generalist.data.sources.local import Arrays
from generalist.data.sources.passages import Chunks, Neighbourhoods, averaged
from generalist.data.sources.windows import Windows


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(
        path,
        x_train=np.arange(60).reshape(20, 3),
        y_train=np.arange(20) % 2,
        x_test=np.arange(15).reshape(5, 3),
        y_test=np.array([0, 1, 0, 1, 1]),
        names=np.array(["off", "on"]),
        label=np.arange(7),
        offsets=np.array([0, 3, 7]),
        edges=np.arange(10).reshape(2, 5),
        edge_offsets=np.array([0, 2, 5]),
        rate=np.array(50),
        fold=np.array([0, 1]),
    )
    return str(path)


def ids(source, split):
    return {r["id"] for r in source.open(split).rows}


def test_arrays_of_an_npz_become_records_with_class_names(npz):
    source = Arrays(npz, {"value": "x_{split}", "label": "y_{split}", "kind": "=toy"}, classes="names")
    test = source.open("test")
    assert len(test) == 5 and test.info["classes"] == ["off", "on"]
    assert test[1]["value"].tolist() == [3, 4, 5] and test[1]["label"] == 1 and test[1]["kind"] == "toy"


def test_validation_is_set_aside_from_training_and_never_meets_it(npz):
    source = Arrays(npz, {"value": "x_{split}"}, holdout=0.2)
    train, val = ids(source, "train"), ids(source, "val")
    assert (len(train), len(val)) == (16, 4) and not train & val
    assert ids(source, "val") == val


def test_ragged_arrays_are_cut_along_the_axis_that_the_offsets_count(npz):
    fields = {"graph": {"nodes": "label@offsets", "edges": "edges@edge_offsets"}, "rate": "rate"}
    source = Arrays(npz, fields, fold="fold", test_fold=1)
    record = source.open("test")[0]
    assert record["graph"]["nodes"].tolist() == [3, 4, 5, 6]
    assert record["graph"]["edges"].tolist() == [[2, 3, 4], [7, 8, 9]] and record["rate"] == 50


def test_folds_rows_and_shares_divide_a_file(tmp_path):
    pandas.DataFrame({"a": range(30), "fold": [i % 3 for i in range(30)]}).to_csv(tmp_path / "t.csv", index=False)
    path = str(tmp_path / "t.csv")
    for source in (
        Arrays(path, {"a": "a"}, fold="fold", test_fold=2, val_fold=1),
        Arrays(path, {"a": "a"}, fold="fold", test_fold=2),
        Arrays(path, {"a": "a"}, shares=[0.6, 0.2]),
        Arrays(path, {"a": "a"}, rows={"train": [0, 20], "test": [20, 30]}),
        Arrays(path, {"a": "a"}, rows={"train": [0, 15], "val": [15, 20], "test": [20, 30]}),
    ):
        parts = [{r["a"] for r in source.open(split).rows} for split in ("train", "val", "test")]
        assert all(parts) and sum(map(len, parts)) == 30 and len(set.union(*parts)) == 30


def test_whole_groups_are_set_aside(tmp_path):
    names = [f"{i // 4}-{i % 4}" for i in range(40)]
    pandas.DataFrame({"a": range(40), "name": names}).to_csv(tmp_path / "t.csv", index=False)
    source = Arrays(str(tmp_path / "t.csv"), {"name": "name"}, group="name-", holdout=0.2)
    groups = [{r["name"].split("-")[0] for r in source.open(split).rows} for split in ("train", "val")]
    assert len(groups[1]) == 2 and not groups[0] & groups[1]


def test_pictures_lists_and_rows_of_a_parquet_file(tmp_path):
    buffer = io.BytesIO()
    PIL.new("RGB", (5, 3), "red").save(buffer, "PNG")
    frame = pandas.DataFrame(
        {"png": [buffer.getvalue()] * 2, "q": [["a", "b"], ["c"]], "n": [[1, 2], [3]], "x": [0.5, None]}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    source = Arrays(path, {"image": "picture:png", "q": "q", "n": "n"}, explode=["q", "n"], classes="q")
    rows = source.open("test")
    assert [(r["q"], r["n"]) for r in rows.rows] == [("a", 1), ("b", 2), ("c", 3)]
    assert rows[0]["image"].size == (5, 3) and rows.info["classes"] == ["a", "b", "c"]
    row = Arrays(path, {"row": "*"}, drop=["png", "q", "n"]).open("test")[1]["row"]
    assert row == {"x": None}


@pytest.mark.parametrize(
    ("fields", "settings", "words"),
    [
        ({"v": "x_trian"}, {}, "did you mean|nearest|x_train"),
        ({"v": "picture:x_{split}"}, {}, "not the bytes"),
        ({"v": "x_{split}"}, {"fold": "folt"}, "fold"),
        ({"v": "x_{split}"}, {"rows": {"train": [0, 5]}}, "no record"),
    ],
)
def test_mistakes_in_a_description_are_named(npz, fields, settings, words):
    with pytest.raises(UserError, match=words):
        Arrays(npz, fields, **settings).open("test")[0]


def test_files_that_cannot_be_read_are_named(tmp_path):
    for name, text in (("a.npz", "zz"), ("a.parquet", "zz"), ("a.xls", "zz")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name) as caught:
            Arrays(str(tmp_path / name), {"v": "v"}).open("test")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no data file"):
        Arrays("nowhere.csv", {"v": "v"}).open("test")
    with pytest.raises(UserError, match="no split"):
        Arrays("nowhere.csv", {"v": "v"}).open("training")


def test_windows_keep_futures_inside_their_rows_and_scale_by_training_rows(tmp_path):
    t = np.arange(50.0)
    pandas.DataFrame({"date": ["d"] * 50, "a": t, "b": -2 * t}).to_csv(tmp_path / "t.csv", index=False)
    rows = {"train": [0, 20], "val": [20, 30], "test": [30, 50]}
    source = Windows(str(tmp_path / "t.csv"), rows, context=5, horizon=3)
    parts = {split: source.open(split) for split in rows}
    assert [len(p) for p in parts.values()] == [2 * 13, 2 * 8, 2 * 18]
    mean, std = t[:20].mean(), t[:20].std()
    first, last = parts["val"][0], parts["val"][15]
    np.testing.assert_allclose(first["past"] * std + mean, [15, 16, 17, 18, 19])
    np.testing.assert_allclose(first["future"] * std + mean, [20, 21, 22])
    assert last["series"] == "b"
    np.testing.assert_allclose(last["future"] * 2 * std - 2 * mean, [-54, -56, -58])
    with pytest.raises(UserError, match="rows 45 to 47"):
        Windows(str(tmp_path / "t.csv"), {"train": [0, 20], "test": [45, 47]}, context=5, horizon=3).open("test")


def test_a_column_that_stands_still_in_training_is_not_scaled(tmp_path):
    lines = [f"{t % 7},{0 if t < 30 else t}" for t in range(50)]
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(lines) + "\n")
    source = Windows(str(tmp_path / "t.csv"), {"train": [0, 30], "test": [40, 50]}, context=5, horizon=3)
    test = source.open("test")
    later = [row["future"] for row in (test[i] for i in range(len(test))) if row["series"] == "b"]
    np.testing.assert_allclose(later[0], [40, 41, 42])


def test_chunks_of_a_text_cover_it_once(tmp_path):
    text = "".join(f"line {i} of the text\n" for i in range(100))
    (tmp_path / "t.txt").write_text(text)
    source = Chunks(str(tmp_path / "t.txt"), size=60)
    assert "".join(r["text"] for split in ("train", "val", "test") for r in source.open(split).rows) == text


def test_neighbourhoods_put_the_asked_node_first(tmp_path):
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "g.npz", edge_index=edges, y=np.arange(5) % 2, idx_train=np.array([2]), idx_test=np.array([4]),
        idx_val=np.array([0]), class_names=np.array(["a", "b"]), x_row=np.repeat(np.arange(5), 3),
        x_col=rng.integers(0, 7, 15), x_val=np.ones(15, np.float32), x_shape=np.array([5, 7]),
    )  # fmt: skip
    source = Neighbourhoods(str(tmp_path / "g.npz"), components=2, hops=1)
    record = source.open("train")[0]
    assert sorted(map(sorted, record["graph"]["edges"].tolist())) == [[0, 1], [0, 2]] and record["label"] == 0
    assert record["graph"]["node_values"].shape == (3, 2)
    assert len(source.open("test")[0]["graph"]["node_values"]) == 2
    assert len(Neighbourhoods(str(tmp_path / "g.npz"), components=2, hops=4).open("test")[0]["graph"]["edges"]) == 4
    assert (
        len(Neighbourhoods(str(tmp_path / "g.npz"), components=2, hops=4, most=2).open("test")[0]["graph"]["edges"])
        == 1
    )


def test_features_are_averaged_over_the_neighbours_as_the_formula_says():
    rng = np.random.default_rng(1)
    edges = np.array([[0, 1, 1, 3], [1, 0, 2, 3]])  # one edge both ways, one loop
    x = rng.random((4, 6))
    linked = np.eye(4)
    linked[[0, 1, 1, 2], [1, 0, 2, 1]] = 1
    scale = np.diag(linked.sum(1) ** -0.5)
    step = scale @ linked @ scale
    assert np.allclose(averaged(csr_array(x), edges, 2).toarray(), step @ step @ x)


def test_components_keep_their_relative_sizes_where_they_are_not_whitened(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random(60).astype(np.float32) * np.tile([9, 3, 1, 1, 1, 1], 10)
    np.savez(
        tmp_path / "g.npz", edge_index=np.array([[0], [1]]), y=np.arange(10) % 2, idx_train=np.arange(10),
        idx_test=np.arange(10), idx_val=np.arange(10), class_names=np.array(["a", "b"]),
        x_row=np.repeat(np.arange(10), 6), x_col=np.tile(np.arange(6), 10), x_val=values, x_shape=np.array([10, 6]),
    )  # fmt: skip
    deviations = []
    for whiten in (True, False):
        source = Neighbourhoods(str(tmp_path / "g.npz"), components=3, hops=0, most=1, smooth=1, whiten=whiten)
        rows = np.concatenate([record["graph"]["node_values"] for record in source.open("train")])
        deviations.append(rows.std(0))
    assert np.allclose(deviations[0], 1, atol=1e-5) and np.ptp(deviations[1]) > 0.1


def test_every_task_of_the_joint_recipe_opens_its_splits_and_they_never_meet(shared):
    from generalist.recipes.all_modalities import recipe

    made = recipe(shared / "data")
    assert len(made.tasks) == 30
    for task in made.tasks:
        sizes = [len(task.source.open(split)) for split in ("train", "val", "test")]
        assert min(sizes) >= 7, task.name
        record = task.source.open("train")[0]
        wanted = {*task.inputs.values()} - {"row"}
        assert wanted <= set(record), task.name
        if sizes[0] < 400:
            seen = [{r["id"] for r in task.source.open(split).rows} for split in ("train", "val")]
            assert not seen[0] & seen[1], task.name
