"""Pictures saved again and texts retyped are found as nearly the same; different ones are not."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.stream.source import Records
from generalist.data.tools.alike import Looks, plain_words
from generalist.data.tools.check import check


def picture(number: int) -> Image.Image:
    """Smooth colours, another one for every number."""
    small = np.random.default_rng(number).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((70, 50), Image.Resampling.BICUBIC)


def saved(made: Image.Image, form: str, **settings) -> Image.Image:
    buffer = io.BytesIO()
    made.save(buffer, form, **settings)
    return Image.open(io.BytesIO(buffer.getvalue()))


CHANGES = {
    "saved again": lambda p: saved(p, "JPEG", quality=40),
    "smaller": lambda p: p.resize((35, 30)),
    "brighter": lambda p: p.point(lambda v: min(255, int(v * 1.15))),
    "grey": lambda p: p.convert("L"),
    "as an array": np.asarray,
    "as bytes": lambda p: saved(p, "PNG").fp.getvalue(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found_and_other_pictures_are_not(change):
    rows = [{"id": f"r{i}", "image": picture(i)} for i in range(60)]
    rows += [{"id": f"again {i}", "image": CHANGES[change](picture(i))} for i in (3, 41)]
    report, _ = check(Records(rows), "train")
    assert report.problems["nearly repeated"] == ["again 3 is like r3", "again 41 is like r41"]
    assert report.valid, "named, but it does not make the set invalid"


def test_a_picture_that_is_the_same_to_the_byte_is_repeated_and_not_also_nearly_so():
    rows = [{"id": f"r{i}", "image": np.asarray(picture(i % 5))} for i in range(6)]
    report, _ = check(Records(rows), "train")
    assert report.problems["repeated"] == ["r5 is r0"]
    assert "nearly repeated" not in report.as_json()["problems"]


def test_pictures_of_one_shade_are_like_no_other():
    looks = Looks()
    for i in range(4):
        looks.add(str(i), {"image": Image.new("L", (40, 30), 60 * i)})
    assert list(looks.pairs()) == []


def test_texts_of_the_same_words_are_nearly_the_same():
    assert plain_words("A dog,  in the SNOW!") == "a dog in the snow"
    texts = ["A dog runs through the deep snow.", "a dog runs through the deep snow", "a cat runs through deep snow"]
    report, _ = check(Records([{"id": str(i), "text": t} for i, t in enumerate(texts)]), "train")
    assert report.problems["nearly repeated"] == ["1 is like 0"]


def test_validate_finds_training_pictures_that_look_like_those_of_an_evaluation_set(tmp_path, capsys):
    for i in range(9):
        for place, made in (("train/all", picture(i)), ("other/test/all", picture(i + 7))):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            made.save(tmp_path / place / f"{i}.{'png' if i < 5 else 'jpg'}")
    words = ["data", "validate", str(tmp_path / "train"), "--against", str(tmp_path / "other"), "--json", "--quiet"]
    assert main([*words, "--set", "val=0", "--set", "test=0", "--splits", "train"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["read"] == 9
    # pictures 7 and 8, as JPEG here, are the first two of the other set, as PNG
    (found,) = report["problems"].values()
    assert list(report["problems"]) == ["nearly leaked"]
    assert [line.split(" (")[0].replace("all/", "") for line in found["samples"]] == [
        f"{i}.jpg is like test/{i - 7}.png of {tmp_path / 'other'}" for i in (7, 8)
    ]


def test_bytes_that_only_begin_like_a_picture_are_broken_and_not_the_end_of_the_check():
    whole = saved(picture(1), "PNG").fp.getvalue()
    report, _ = check(Records([{"id": "a", "image": whole[: len(whole) // 2]}, {"id": "b", "image": whole}]), "train")
    assert report.read == 1
    assert report.problems["broken"][0].startswith("a: ")


def test_near_leakage_between_two_splits_is_found_in_pictures_and_texts():
    held = [{"id": f"t{i}", "image": picture(i), "text": f"A long caption with number {i}."} for i in range(5)]
    test, marks = check(Records(held), "test")
    rows = [{"id": f"r{i}", "image": picture(20 + i), "text": f"words of sample number {i} alone"} for i in range(6)]
    rows[2]["image"] = saved(picture(3), "JPEG", quality=50)
    rows[4]["text"] = "a long caption, with number 1"
    report, _ = check(Records(rows), "train", {"test": marks}, looks={"test": test.looks})
    assert sorted(report.problems["nearly leaked"]) == ["r2 is like t3 of test", "r4 is like t1 of test"]
    assert not report.problems["leaked"]
