"""COCO files as annotation tools write them: read where they have one meaning, refused by name where they have not."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.coco import CocoObjects

POLYGON = [[4, 5, 24, 5, 24, 15, 4, 15]]


def tree() -> dict:
    images = [{"id": i + 1, "file_name": f"{i} a.jpg", "width": 64, "height": 48} for i in range(3)]
    notes = [
        {"id": i, "image_id": i + 1, "category_id": [7, 3][i % 2], "bbox": [4, 5, 20, 10], "area": 200, "iscrowd": 0}
        for i in range(1, 3)
    ]
    notes = [note | {"segmentation": copy.deepcopy(POLYGON)} for note in notes]
    return {"images": images, "annotations": notes, "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "tree"}]}


def write(folder, change, splits=("train",)) -> CocoObjects:
    made = tree()
    change(made)
    folder.mkdir(exist_ok=True)
    for i in range(3):
        Image.fromarray(np.full((48, 64, 3), 50 * i, np.uint8)).save(folder / f"{i} a.jpg")
    for split in splits:
        (folder / f"instances_{split}.json").write_text(json.dumps(made))
    return CocoObjects(str(folder))


def images(**values):
    return lambda t: [i.update({k: v(i) if callable(v) else v for k, v in values.items()}) for i in t["images"]]


def notes(**values):
    return lambda t: [a.update({k: v(a) if callable(v) else v for k, v in values.items()}) for a in t["annotations"]]


ONE_MEANING = {
    "plain": lambda t: None,
    "no sizes": lambda t: [(i.pop("width"), i.pop("height")) for i in t["images"]],
    "empty sizes": images(width=None, height=None),
    "float sizes": images(width=64.0, height=48.0),
    "image ids as texts": notes(image_id=lambda a: str(a["image_id"])),
    "image ids as floats": images(id=lambda i: float(i["id"])),
    "category ids as texts": notes(category_id=lambda a: str(a["category_id"])),
    "categories' ids as texts": lambda t: [c.update(id=str(c["id"])) for c in t["categories"]],
    "no masks": notes(segmentation=None),
    "no crowd, no area": lambda t: [(a.pop("iscrowd"), a.pop("area")) for a in t["annotations"]],
    "Windows' separators": images(file_name=lambda i: f"images\\{i['file_name']}"),
    "a tool's own path": images(file_name=lambda i: f"/data/upload/1/{i['file_name']}"),
    "an address": images(file_name=lambda i: "http://host/x/" + i["file_name"].replace(" ", "%20")),
    "a local file's address": images(file_name=lambda i: f"/data/local-files/?d=set/{i['file_name']}"),
    "signs written out": images(file_name=lambda i: i["file_name"].replace(" ", "%20")),
    "a group of categories": lambda t: t["categories"].insert(0, {"id": 0, "name": "all", "supercategory": "none"}),
    "a twin": lambda t: t["annotations"].append(t["annotations"][1] | {"id": 99}),
}


@pytest.mark.parametrize("name", ONE_MEANING)
def test_what_has_one_meaning_is_read(tmp_path, name, capsys):
    source = write(tmp_path / "set", ONE_MEANING[name])
    records = source.open("train")
    assert [r["image"] for r in records.rows] == [tmp_path / f"set/{i} a.jpg" for i in range(3)]
    assert [(r["width"], r["height"]) for r in records.rows] == [(64, 48)] * 3
    assert records.info["classes"] == ["car", "tree"]
    found = [r["classes"].tolist() for r in records.rows]
    assert found == [[], [0], [1, 1] if name == "a twin" else [1]]
    assert records[1]["boxes"].tolist() == [[4, 5, 24, 15]]
    assert ("notes" in records.info) == (name in ("a group of categories", "a twin"))
    assert main(["data", "validate", f"coco:{tmp_path / 'set'}", "--splits", "train", "--quiet"]) == 0
    assert "3 of 3 samples read" in capsys.readouterr().out


MORE_THAN_ONE = {
    "annotation 1 .*no area": lambda t: t["annotations"][0].update(bbox=[4, 5, 0, 10]),
    "annotation 2 .*lies outside": lambda t: t["annotations"][1].update(bbox=[50, 40, 20, 20]),
    "annotation 1 .*left, top, right, bottom": notes(bbox=[4, 5, 24, 15]),
    "annotation 1 .*COCO's is left": notes(bbox=[4, 5, 24, 15], segmentation=[]),
    "stand twice .*car": lambda t: t["categories"].append({"id": 9, "name": "car", "supercategory": "toy"}),
    "image 1 a.jpg: the image id 1 stands twice": lambda t: t["images"][1].update(id="1"),
    "image 0 a.jpg: width None and height 48": lambda t: t["images"][0].update(width=None),
    "image gone.jpg: no width and height": lambda t: t["images"].append({"id": 9, "file_name": "gone.jpg"}),
    "both found only as": lambda t: t["images"].append({"id": 9, "file_name": "x/0 a.jpg", "width": 64, "height": 48}),
}


@pytest.mark.parametrize("words", MORE_THAN_ONE)
def test_what_has_more_than_one_is_refused_naming_the_record(tmp_path, words):
    with pytest.raises(UserError, match=words):
        write(tmp_path / "set", MORE_THAN_ONE[words]).open("train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (images(width=48, height=64), "0 a.jpg: image has 64 x 48 pixels, the record says 48 x 64"),
        (lambda t: t["images"][0].update(file_name="gone.jpg"), "no such file"),
        (lambda t: t["images"][0].update(width=640, height=480), "0 a.jpg: image has 64 x 48 pixels"),
    ],
)
def test_validate_opens_the_pictures_and_compares_their_sizes(tmp_path, change, words, capsys):
    write(tmp_path / "set", change)
    assert main(["data", "validate", f"coco:{tmp_path / 'set'}", "--splits", "train", "--quiet"]) == 1
    assert words in capsys.readouterr().out


def test_boxes_of_pictures_that_are_shown_turned_are_those_of_the_shown_picture(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "set", lambda t: [i.pop("width") and i.pop("height") for i in t["images"]])
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "set/0 a.jpg", exif=exif.tobytes())
    record = CocoObjects(str(tmp_path / "set")).open("train")[0]
    assert (record["width"], record["height"]) == (48, 64)


def test_objects_go_into_shards_with_the_bytes_of_their_pictures(tmp_path):
    from generalist.data.sources.shards import Shards

    write(tmp_path / "set", lambda t: None)
    words = ["--splits", "train", "--in-order", "--quiet"]
    assert main(["data", "shard", f"coco:{tmp_path / 'set'}", str(tmp_path / "s"), *words]) == 0
    written = Shards(str(tmp_path / "s")).open("train")
    assert written[2]["image"].encoded == (tmp_path / "set/2 a.jpg").read_bytes()
    assert written[2]["boxes"].tolist() == [[4, 5, 24, 15]]


LAYOUTS = {
    "COCO's own": ("annotations/instances_{}2017.json", {"train": "train2017", "val": "val2017"}),
    "Roboflow's": ("{}/_annotations.coco.json", {"train": "train", "valid": "valid", "test": "test"}),
    "a file a split": ("{}.json", {"train": "images/train", "val": "images/val"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_that_people_have_are_found_each_with_its_own_pictures(tmp_path, layout):
    """Pictures of the same name in every split: the grey value tells whose was taken."""
    pattern, places = LAYOUTS[layout]
    for number, (split, place) in enumerate(places.items()):
        for i in range(3):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((48, 64, 3), 80 * number, np.uint8)).save(
                tmp_path / place / f"{i} a.jpg", quality=95
            )
        file = tmp_path / pattern.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(tree()))
    source = CocoObjects(str(tmp_path))
    for number, (split, place) in enumerate(places.items()):
        records = source.open({"valid": "val"}.get(split, split))
        assert len(records) == 3 and records.info["classes"] == ["car", "tree"]
        assert [str(records[i]["image"]) for i in range(3)] == [str(tmp_path / place / f"{i} a.jpg") for i in range(3)]
        with Image.open(records[0]["image"]) as picture:
            assert abs(int(np.asarray(picture).mean()) - 80 * number) <= 2


def test_a_layout_that_is_not_there_is_said_by_the_usual_name(tmp_path):
    with pytest.raises(UserError, match=r"cannot read annotations .*instances_train.json"):
        CocoObjects(str(tmp_path)).open("train")
