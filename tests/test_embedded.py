"""The embedded sets: disjoint splits, the same bytes for the same seed, and records as documented."""

import re

import numpy as np
import pytest

from generalist.data.base.errors import UserError
from generalist.data.sources.embedded import SETS, Embedded, images, series, synthetic, text
from generalist.data.sources.embedded.files import package_file
from generalist.data.sources.embedded.split import SPLITS, deal, digest

# What a record holds besides its id and its answer; two records with equal content are the same sample.
CONTENT = {
    "digits": ("image",),
    "glyphs": ("image",),
    "docstrings": ("text",),
    "wine": ("row",),
    "breast_cancer": ("row",),
    "diabetes": ("row",),
    "anes96": ("row",),
    "fair": ("row",),
    "series": ("past", "future"),
    "tones": ("audio",),
    "solids": ("points",),
}
SYNTHETIC = {"tones", "solids"}


def opened(name: str, **kwargs) -> dict:
    return {split: Embedded(name, **kwargs).open(split) for split in SPLITS}


def fields(records, key: str) -> list:
    return [records[i][key] for i in range(len(records))]


def contents(records, name: str) -> list[str]:
    return ["|".join(digest(records[i][key]) for key in CONTENT[name]) for i in range(len(records))]


@pytest.mark.parametrize("name", SETS)
def test_no_sample_is_in_two_splits_by_id_or_by_content(name):
    splits = opened(name)
    for key in (lambda r: [r[i]["id"] for i in range(len(r))], lambda r: contents(r, name)):
        found = {split: key(records) for split, records in splits.items()}
        every = [item for items in found.values() for item in items]
        assert len(every) == len(set(every)), "repeated within or across splits"
        assert all(len(items) >= 10 for items in found.values())


@pytest.mark.parametrize("name", SETS)
def test_a_set_says_what_it_is_and_whether_it_is_synthetic(name):
    for records in opened(name).values():
        assert records.info["synthetic"] is (name in SYNTHETIC)
        assert records.info["about"] and "\n" not in records.info["about"]
        if "classes" in records.info:
            found = {records[i]["label"] for i in range(len(records))}
            assert found == set(range(len(records.info["classes"]))), "every class is in every split"


@pytest.mark.parametrize("name", sorted(set(SETS) - {"docstrings"}))
def test_the_same_seed_gives_the_same_bytes_in_the_same_order(name):
    build = SETS[name][0]  # past the cache
    again = build(seed=0)
    for split, records in opened(name).items():
        assert len(records) == len(again[split])
        assert all(digest(records[i]) == digest(again[split][i]) for i in range(0, len(records), 7))


@pytest.mark.parametrize("name", ["digits", "glyphs", "wine", "tones", "solids"])
def test_another_seed_gives_another_split(name):
    first, second = Embedded(name).open("test"), Embedded(name, seed=1).open("test")
    assert set(contents(first, name)) != set(contents(second, name))


def test_docstrings_are_the_same_again_and_change_with_the_seed():
    few = {"packages": ["networkx"]}
    first, other = (opened("docstrings", seed=seed, options=few) for seed in (0, 1))
    again = text.docstrings(seed=0, packages=("networkx",))
    assert all(first[split].rows == again[split].rows for split in SPLITS)
    assert first["test"].rows != other["test"].rows


def test_digits_are_sixteen_pixels_wide_and_span_the_grey_scale():
    image = Embedded("digits").open("train")[0]["image"]
    assert image.dtype == np.uint8 and image.shape == (16, 16) and image.max() > 200
    small = Embedded("digits", options={"size": 8}).open("train")[0]["image"]
    assert (image[::2, ::2] == small).all() and (image[1::2, 1::2] == small).all()


def test_glyph_test_characters_are_unknown_to_training_but_their_words_are_not():
    splits = opened("glyphs")
    train = {row["character"] for row in splits["train"].rows}
    known = {word for row in splits["train"].rows for word in images.words(row["text"])}
    for split in ("val", "test"):
        rows = splits[split].rows
        assert len(rows) == 160 and {row["font"] for row in rows} == {"DejaVuSans"}
        assert not train & {row["character"] for row in rows}
        assert all(set(images.words(row["text"])) <= known for row in rows)
        assert len({row["text"] for row in rows}) == len(rows)
    assert len({row["font"] for row in splits["train"].rows}) >= 6


def test_no_two_glyphs_of_the_main_font_look_alike():
    rows = [row for records in opened("glyphs").values() for row in records.rows if row["font"] == "DejaVuSans"]
    flat = np.stack([row["image"].ravel() for row in rows]).astype(float)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    assert (np.triu(flat @ flat.T, 1) < images.ALIKE).all()
    kept = {row["character"] for row in rows}
    assert "A" in kept and "Α" not in kept and "А" not in kept, "Greek and Cyrillic A look like the Latin one"


def test_docstring_pieces_are_short_prose_from_modules_that_training_never_saw():
    splits = opened("docstrings")
    modules = {split: {row["module"] for row in records.rows} for split, records in splits.items()}
    assert not modules["train"] & (modules["test"] | modules["val"]) and not modules["test"] & modules["val"]
    for records in splits.values():
        for row in records.rows:
            assert text.FEWEST <= len(row["text"].split()) <= text.MOST
            assert not re.search(r">>>|``|:math:|\n", row["text"])
    assert len(splits["train"]) > 5_000 and len(splits["test"]) > 400


def test_no_ten_words_in_a_row_of_a_held_out_piece_are_in_training():
    splits = opened("docstrings")
    known = {h for row in splits["train"].rows for h in text.shingles(row["text"])}
    assert all(known.isdisjoint(text.shingles(row["text"])) for s in ("val", "test") for row in splits[s].rows)


def test_only_prose_is_taken_from_a_docstring():
    code = '''
def f():
    """Return the sum.

    This function adds the two numbers that are given to it, and `returns` the sum
    of the :class:`numbers <a.b>` as an integer.

    Parameters
    ----------
    a : int
        The first of the two numbers that are to be added to each other in this function, as is usual.

    >>> f(1, 2) is the sum of the two numbers and of all that is in the way of this.
    """
'''
    assert list(text.pieces(code)) == [
        "This function adds the two numbers that are given to it, and returns the sum of the numbers as an integer."
    ]
    assert list(text.pieces("def (")) == []


def test_no_future_value_of_a_held_out_window_is_in_a_training_window():
    lookback, horizon = 96, 24
    splits = opened("series")
    seen: dict[str, int] = {}
    for split in SPLITS:
        last = {}
        for row in splits[split].rows:
            assert row["past"].shape == (lookback,) and row["future"].shape == (horizon,)
            first_future = row["start"] + lookback
            assert first_future > seen.get(row["series"], -1), "the future begins after all earlier splits"
            last[row["series"]] = max(last.get(row["series"], 0), first_future + horizon - 1)
        assert set(last) == set(splits[split].info["series"])
        seen.update(last)


def test_a_window_is_a_stretch_of_one_series_without_gaps():
    values = series.load()
    for row in Embedded("series").open("test").rows[::9]:
        whole, period = values[row["series"]]
        window = np.concatenate([row["past"], row["future"]])
        assert (whole[row["start"] : row["start"] + len(window)] == window).all()
        assert np.isfinite(window).all() and row["period"] == period


def test_lookback_and_horizon_are_options():
    row = Embedded("series", options={"lookback": 30, "horizon": 7}).open("test")[0]
    assert row["past"].shape == (30,) and row["future"].shape == (7,)


def test_sounds_and_solids_have_their_documented_shapes():
    sound = Embedded("tones").open("train")[3]
    wave = sound["audio"]["array"]
    assert wave.dtype == np.float32 and wave.shape == (4000,) and sound["audio"]["sampling_rate"] == 8000
    assert np.abs(wave).max() <= 1
    cloud = Embedded("solids").open("train")[3]
    assert cloud["points"].dtype == np.float32 and cloud["points"].shape == (256, 3)
    assert np.abs(cloud["points"].mean(0)).max() < 0.1


def test_generated_rows_behave_like_a_list():
    rows = Embedded("tones").open("val").rows
    assert digest(rows[-1]) == digest(rows[len(rows) - 1]) and len(rows[:3]) == 3
    with pytest.raises(IndexError):
        rows[len(rows)]


@pytest.mark.parametrize("name", synthetic.SOLIDS)
def test_surface_points_lie_on_the_surface_of_the_solid(name):
    x, y, z = synthetic.surface(name, np.random.default_rng(0), 500).T
    r = np.hypot(x, y)
    on = {
        "sphere": lambda: np.isclose(r**2 + z**2, 1),
        "cube": lambda: np.isclose(np.max(np.abs([x, y, z]), axis=0), 1),
        "cylinder": lambda: np.isclose(np.maximum(r, np.abs(z)), 1),
        "cone": lambda: np.isclose(z, 1 - 2 * r) | np.isclose(z, -1),
        "torus": lambda: np.isclose(tube := np.hypot(r - 0.7, z), tube.mean()),
        "pyramid": lambda: np.isclose(z, -1) | np.isclose(z, 1 - 2 * np.maximum(np.abs(x), np.abs(y))),
        "prism": lambda: np.isclose(np.abs(z), 1) | np.isclose(np.maximum(-y, y / 2 + np.abs(x) * 0.75**0.5), 0.5),
        "octahedron": lambda: np.isclose(np.abs(x) + np.abs(y) + np.abs(z), 1),
    }
    assert on[name]().all()


def test_files_read_without_their_package_hold_what_the_package_loads():
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
    from statsmodels.datasets import co2, elec_equip, elnino

    loaded = {"wine": load_wine(), "breast_cancer": load_breast_cancer(), "diabetes": load_diabetes(scaled=False)}
    for name, whole in loaded.items():
        rows = {tuple(row.values()): row.keys() for part in opened(name).values() for row in fields(part, "row")}
        assert set(rows) == {tuple(row) for row in whole.data.tolist()}
        assert {tuple(names) for names in rows.values()} == {tuple(str(n) for n in whole.feature_names)}
    pictures = fields(Embedded("digits", options={"size": 8}).open("test"), "image")
    known = {np.round(image * (255 / 16)).astype(np.uint8).tobytes() for image in load_digits().images}
    assert len(pictures) > 300 and {picture.tobytes() for picture in pictures} <= known
    values = {name: values for name, (values, _) in series.load().items()}
    weekly = co2.load_pandas().data["co2"].resample("MS").mean().interpolate().to_numpy()
    assert np.array_equal(values["co2"], weekly.astype(np.float32))
    table = elnino.load_pandas().data.drop(columns="YEAR").to_numpy().ravel()
    assert np.array_equal(values["elnino"], table.astype(np.float32))
    assert np.array_equal(values["elec_equip"], elec_equip.load_pandas().data.to_numpy().ravel().astype(np.float32))


def test_a_package_that_is_absent_or_lacks_a_file_is_told():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        package_file("no_such_package", "x.csv")
    with pytest.raises(UserError, match=r"numpy in .* has no file data/x\.csv"):
        package_file("numpy", "data/x.csv")


def test_a_table_row_names_its_columns():
    records = Embedded("wine").open("train")
    assert records.info["table"] == "wine" and list(records[0]["row"]) == records.info["columns"]
    assert all(type(value) is float for value in records[0]["row"].values())
    target = Embedded("diabetes").open("train")[0]["target"]
    assert 20 < target < 400


def test_dealing_by_label_keeps_each_class_in_each_split():
    rows = [{"id": str(i), "label": int(i % 10 == 0)} for i in range(100)]
    parts = deal(rows, seed=3, by="label")
    assert [sum(row["label"] for row in parts[split]) for split in SPLITS] == [7, 1, 2]


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        (Embedded("digit"), "train", "did you mean 'digits'"),
        (Embedded("wine"), "tests", "did you mean 'test'"),
        (Embedded("series", options={"lookbak": 1}), "train", "did you mean 'lookback'"),
        (Embedded("series", options={"lookback": 99999}), "train", "long enough"),
        (Embedded("digits", options={"size": 10}), "train", "multiple of 8"),
        (Embedded("glyphs", options={"held_out": 5000}), "train", "held_out must be"),
        (Embedded("docstrings", options={"packages": ["no_such_package"]}), "train", "pip install"),
        (Embedded("tones", seed=-1), "train", "must not be negative"),
    ],
)
def test_a_mistake_is_told_in_one_line(source, split, message):
    with pytest.raises(UserError, match=message) as told:
        source.open(split)
    assert "\n" not in str(told.value)


def test_docstrings_are_read_once_and_again_only_where_the_code_has_changed_or_the_file_is_spoilt(
    tmp_path, monkeypatch
):
    package = tmp_path / "prose"
    package.mkdir()
    sentence = "This is the text of the module that is read from the file for the test of it. "
    module = package / "one.py"
    module.write_text(f'"""{sentence}{sentence.replace("test", "use")}"""')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    parsed = []
    pieces = text.pieces
    monkeypatch.setattr(text, "pieces", lambda code: parsed.append(1) or pieces(code))

    def read():
        return [r["text"] for r in text.docstrings(packages=("prose",))["train"].rows]

    first = read()
    assert first and read() == first
    assert len(parsed) == 1
    (kept,) = (tmp_path / "cache/docstrings").glob("*.json")
    kept.write_text(kept.read_text()[:20])
    assert read() == first
    assert len(parsed) == 2
    module.write_text(module.read_text().replace("module", "package"))
    assert read() == [t.replace("module", "package") for t in first]
    assert len(parsed) == 3
    (tmp_path / "full").write_text("a file, where a folder is needed")
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "full"))
    assert read() == [t.replace("module", "package") for t in first], "it works without a place to keep it"
