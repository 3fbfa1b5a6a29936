"""COCO annotations as records: what is right comes through, what is broken is named; AP is the reference's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generalist.data.base.errors import UserError
from generalist.data.sources.annotations.masks import decode_mask, rle_covers
from generalist.data.sources.coco import CocoObjects, read_coco
from generalist.tasks.measures.average_precision import average_precision, encode_mask, resampled, truth

SQUARE = [[2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]]


def write(
    folder: Path, notes: list[dict], names: tuple[str, ...] = ("cat", "dog"), split: str = "train", **image
) -> Path:
    """A file of one picture of 10 x 7 pixels, category ids 7, 14, ... and these annotations."""
    picture = {"id": 3, "file_name": "a.png", "width": 10, "height": 7}
    tree = {
        "images": [picture],
        "categories": [{"id": 7 * (k + 1), "name": n} for k, n in enumerate(names)],
        "annotations": [{"id": i + 1, "image_id": 3, "category_id": 14, "iscrowd": 0} | n for i, n in enumerate(notes)],
    }
    path = folder / f"instances_{split}.json"
    path.write_text(json.dumps(tree))
    return path


def test_a_record_has_corners_class_indices_and_masks(tmp_path):
    write(tmp_path, [{"bbox": [2, 1, 4, 3], "segmentation": SQUARE}, {"bbox": [0, 0, 10, 7], "segmentation": SQUARE}])
    records = CocoObjects(str(tmp_path), masks=True).open("train")
    record = records[0]
    assert records.info["classes"] == ["cat", "dog"] and len(records) == 1
    assert record["boxes"].tolist() == [[2, 1, 6, 4], [0, 0, 10, 7]] and record["classes"].tolist() == [1, 1]
    mask = decode_mask(record["segments"][0], 7, 10)
    assert mask.shape == (7, 10) and mask[1:4, 2:6].all() and mask.sum() == 12


def test_a_picture_without_objects_is_a_record(tmp_path):
    write(tmp_path, [])
    record = CocoObjects(str(tmp_path)).open("train")[0]
    assert record["boxes"].shape == (0, 4) and record["classes"].shape == (0,)


def test_a_test_split_that_is_not_there_is_read_from_val(tmp_path):
    write(tmp_path, [{"bbox": [2, 1, 4, 3]}], split="val")
    assert len(CocoObjects(str(tmp_path)).open("test")) == 1
    with pytest.raises(UserError, match=r"cannot read annotations .*instances_train.json"):
        CocoObjects(str(tmp_path)).open("train")


BROKEN = {
    "has no area": {"bbox": [2, 1, 0, 3]},
    "lies outside the picture of 10 x 7": {"bbox": [8, 1, 5, 3]},
    "is not four finite numbers": {"bbox": [1, 2, 3]},
    "at least three points": {"bbox": [2, 1, 4, 3], "segmentation": [[1.0, 2.0, 3.0, 4.0]]},
    "do not add up to 7 x 10": {"bbox": [2, 1, 4, 3], "segmentation": {"size": [7, 10], "counts": [3, 4, 5]}},
    r"size \[10, 7\] is not the picture's \[7, 10\]": {
        "bbox": [2, 1, 4, 3],
        "segmentation": {"size": [10, 7], "counts": [70]},
    },
    "the mask is empty": {"bbox": [2, 1, 4, 3], "segmentation": {"size": [7, 10], "counts": [70]}},
    "there is no mask": {"bbox": [2, 1, 4, 3], "segmentation": []},
    "list of polygons or a run-length object": {"bbox": [2, 1, 4, 3], "segmentation": None},
    "no category 99": {"bbox": [2, 1, 4, 3], "category_id": 99},
    "no such image": {"bbox": [2, 1, 4, 3], "image_id": 4},
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_annotation_is_an_error_that_names_it(tmp_path, words):
    write(tmp_path, [{"bbox": [2, 1, 4, 3], "segmentation": SQUARE}, BROKEN[words]])
    with pytest.raises(UserError, match=rf"instances_train.json, annotation 2 of image \d.*{words}"):
        CocoObjects(str(tmp_path), masks=True).open("train")


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ({"bbox": [2, 1, float("nan"), 3]}, "not four finite numbers"),
        ({"bbox": [2, 1, float("inf"), 3]}, "not four finite numbers"),
        ({"bbox": "all of it"}, "not four finite numbers"),
        ({"bbox": None}, "not four finite numbers"),
        ({"bbox": [2, 1, -4, 3]}, "has no area"),
        ({"bbox": [30, 20, 4, 3]}, "lies outside the picture of 10 x 7"),
        ({"bbox": [10, 1, 0.9, 3]}, "lies outside the picture of 10 x 7"),
        ({"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]}, "at least three points"),  # an odd number
        ({"segmentation": [[1.0, 2.0, float("nan"), 4.0, 5.0, 6.0]]}, "at least three points"),
        ({"segmentation": ["1 2 3 4 5 6"]}, "at least three points"),
        ({"segmentation": {"size": [7, 10], "counts": [-3, 73]}}, "do not add up"),
        ({"segmentation": {"size": [7, 10], "counts": "~"}}, "do not add up"),
        ({"segmentation": {"size": [7, 10]}}, "needs counts"),
    ],
)
def test_numbers_that_are_none_and_masks_that_are_cut_are_errors(tmp_path, note, words):
    write(tmp_path, [{"bbox": [2, 1, 4, 3], "segmentation": SQUARE, **note}])
    with pytest.raises(UserError, match=rf"instances_train.json, annotation 1 of image 3.*{words}"):
        CocoObjects(str(tmp_path), masks=True).open("train")


@pytest.mark.parametrize(
    ("key", "entries", "words"),
    [
        ("images", ["a.png"], "entry 0 of 'images' is no object but 'a.png'"),
        ("images", [{"id": 3, "file_name": "a.png", "width": "wide", "height": 7}], "width wide and height 7 must be"),
        ("images", [{"id": 3, "file_name": "a.png", "width": 10, "height": 0}], "image a.png: .*at least 1"),
        ("annotations", [[2, 1, 4, 3]], "entry 0 of 'annotations' is no object"),
        ("categories", ["cat"], "entry 0 of 'categories' is no object but 'cat'"),
        ("categories", [{"id": 1, "name": " "}], "a category needs an id and a name"),
    ],
)
def test_entries_that_are_of_another_kind_are_named(tmp_path, key, entries, words):
    path = write(tmp_path, [])
    path.write_text(json.dumps({**json.loads(path.read_text()), key: entries}))
    with pytest.raises(UserError, match=words):
        CocoObjects(str(tmp_path)).open("train")


def test_broken_objects_can_be_left_out_and_are_counted(tmp_path):
    write(tmp_path, [{"bbox": [2, 1, 4, 3], "segmentation": SQUARE}, *list(BROKEN.values())[:9]])
    records = CocoObjects(str(tmp_path), masks=True, strict=False).open("train")
    assert len(records[0]["boxes"]) == 1 and records.info["left_out"] == 9


def test_a_polygon_thinner_than_a_pixel_covers_the_pixels_under_its_corners():
    mask = decode_mask([[4.1, 3.2, 4.3, 3.2, 4.2, 3.3]], 7, 10)
    assert mask.nonzero() == (np.array([3]), np.array([4]))


def test_boxes_that_leave_the_picture_by_rounding_are_cut(tmp_path):
    write(tmp_path, [{"bbox": [-0.4, 1, 4, 6.3]}])
    assert CocoObjects(str(tmp_path)).open("train")[0]["boxes"].tolist() == [[0, 1, 3.6, 7]]


def test_files_whose_categories_differ_are_told_apart(tmp_path):
    path = write(tmp_path, [{"bbox": [2, 1, 4, 3]}], names=("dog", "cat"))
    assert read_coco(path, tmp_path, classes=["cat", "dog"])[0]["classes"].tolist() == [0]  # by name, not by place
    with pytest.raises(UserError, match=r"categories \['dog'\] are not among"):
        read_coco(path, tmp_path, classes=["cat", "cow"])
    with pytest.raises(UserError, match="categories stand twice"):
        read_coco(write(tmp_path, [], names=("cat", "cat")), tmp_path)


def test_a_split_whose_file_lists_the_categories_in_another_order_has_the_order_of_training(tmp_path):
    write(tmp_path, [{"bbox": [2, 1, 4, 3]}], names=("cat", "dog"))  # category 14 is the second name
    write(tmp_path, [{"bbox": [2, 1, 4, 3]}], names=("dog", "cat"), split="val")
    for split, kind in (("train", "dog"), ("val", "cat"), ("test", "cat")):
        records = CocoObjects(str(tmp_path)).open(split)
        assert records.info["classes"] == ["cat", "dog"]
        assert [records.info["classes"][k] for k in records[0]["classes"]] == [kind]
    write(tmp_path, [], names=("cat", "cow"), split="val")
    with pytest.raises(UserError, match=r"instances_val.json: categories \['cow'\] are not among"):
        CocoObjects(str(tmp_path)).open("val")


def test_a_file_of_another_format_is_an_error(tmp_path):
    path = tmp_path / "instances_train.json"
    for text, words in (('{"images": []}', "no list 'annotations'"), ("{", "is not JSON"), ("[]", "no list 'images'")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            CocoObjects(str(tmp_path)).open("train")


def test_compressed_run_lengths_are_checked_before_they_are_decoded():
    mask = np.random.default_rng(0).random((7, 10)) > 0.5
    code = encode_mask(mask)["counts"]
    assert rle_covers(code, 70) and not rle_covers(code, 71) and not rle_covers(code[:-2], 70)
    whole = decode_mask({"size": [7, 10], "counts": code.decode()}, 7, 10)
    assert (whole == mask).all()
    with pytest.raises(UserError, match="do not add up"):
        decode_mask({"size": [7, 10], "counts": code[:-2].decode()}, 7, 10)


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "RGBA", "P"])
def test_pictures_of_any_mode_become_three_channels(tmp_path, mode):
    from generalist.tokenizers_mod.vision.image import read_image

    grey = np.arange(70, dtype=np.uint8).reshape(7, 10) * 3
    picture = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path)
    read = read_image(path, 3)
    assert read.shape == (3, 7, 10)
    torch.testing.assert_close(read[1], torch.from_numpy(grey).float() / 255, atol=0.02, rtol=0)


# --- average precision ---


def _fixed(seed: int, images: int = 5, names: int = 3) -> tuple[list[dict], list[dict]]:
    """Random true objects, and detections that are sometimes near them."""
    rng = np.random.default_rng(seed)
    true, found = [], []
    for i in range(images):
        n = int(rng.integers(0, 7))
        low = rng.uniform(0, 60, (n, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 40, (n, 2))], 1)
        kinds, crowd = rng.integers(0, names, n), rng.random(n) < 0.15
        masks = []
        for left, top, right, bottom in boxes:
            mask = np.zeros((100, 100), dtype=bool)
            mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
            masks.append(encode_mask(mask))
        true.append(
            {
                "image_id": i,
                "height": 100,
                "width": 100,
                "boxes": boxes,
                "classes": kinds,
                "crowd": crowd,
                "masks": masks,
            }
        )
        for box, kind in zip(boxes, kinds, strict=True):
            for _ in range(2):
                moved = np.clip(box + rng.normal(0, 4, 4), 0, 100)
                left, top = moved[:2]
                wide, high = np.maximum(moved[2:] - moved[:2], 1)
                mask = np.zeros((100, 100), dtype=bool)
                mask[int(top) : int(top + high) + 1, int(left) : int(left + wide) + 1] = True
                hit = {"image_id": i, "category_id": int(kind) + 1, "score": float(rng.random())}
                hit |= {"bbox": [float(left), float(top), float(wide), float(high)], "segmentation": encode_mask(mask)}
                found.append(hit)
    return true, found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_average_precision_equals_the_reference_run_from_files(tmp_path, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true, found = _fixed(3)
    tree = truth(true, ["a", "b", "c"])
    mine, by_class = average_precision(tree, found, kind)

    def plain(value):
        return value.decode() if isinstance(value, bytes) else value.tolist()

    (tmp_path / "true.json").write_text(json.dumps(tree, default=plain))
    kept = [{k: v for k, v in f.items() if kind == "segm" or k != "segmentation"} for f in found]
    kept = [{k: v for k, v in f.items() if kind == "bbox" or k != "bbox"} for f in kept]
    (tmp_path / "found.json").write_text(json.dumps(kept, default=plain))
    coco = COCO(str(tmp_path / "true.json"))
    run = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), kind)
    run.evaluate()
    run.accumulate()
    run.summarize()
    for value, expected in zip(mine.values(), run.stats[:6], strict=True):
        assert value == pytest.approx(expected) or (np.isnan(value) and expected == -1)
    assert 0.05 < mine["AP"] < 0.95
    assert np.nanmean(list(by_class.values())) == pytest.approx(mine["AP50"])


def test_average_precision_of_a_case_worked_out_by_hand():
    """Two true boxes; hits in order of score: right, wrong, right. Precision 1 up to recall 1/2, then 2/3."""
    box = np.array([[10, 10, 30, 30], [50, 50, 80, 80]], dtype=float)
    true = [{"image_id": 0, "height": 100, "width": 100, "boxes": box, "classes": [0, 0], "crowd": [False, False]}]
    hits = [([10, 10, 20, 20], 0.9), ([0, 60, 10, 10], 0.8), ([50, 50, 30, 30], 0.7)]
    found = [{"image_id": 0, "category_id": 1, "score": s, "bbox": b} for b, s in hits]
    total, _ = average_precision(truth(true, ["a", "b"]), found)
    assert total["AP50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_average_precision_of_nothing():
    true, _ = _fixed(3)
    nothing, by_class = average_precision(truth(true, ["a", "b", "c"]), [])
    assert nothing["AP50"] == 0 and set(by_class.values()) == {0.0}
    empty = [{"image_id": 0, "height": 9, "width": 9, "boxes": [], "classes": [], "crowd": []}]
    assert np.isnan(average_precision(truth(empty, ["a"]), [])[0]["AP"])


def test_the_open_sets_read_without_an_error(shared):
    for folder, masks, count in (("bccd_detection", False, 205), ("coco_open", True, 75)):
        records = CocoObjects(str(shared / "data" / folder), masks=masks).open("train")
        assert len(records) == count and records.info["left_out"] == 0


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_a_resample_has_the_average_precision_of_its_pictures_as_often_as_they_were_drawn(kind):
    true, found = _fixed(4, names=4)
    own = [[hit for hit in found if hit["image_id"] == image["image_id"]] for image in true]
    names = ["a", "b", "c", "d"]  # of the last no object is true
    images = [
        {k: v for k, v in image.items() if k not in ("image_id",)}
        | {"classes": [names[min(c, 2)] for c in image["classes"]]}
        for image in true
    ]
    hits = [[{**hit, "name": names[hit["category_id"] - 1]} for hit in some] for some in own]
    times = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 3, 0]])
    again = resampled(images, hits, times, kind)
    for row, count in enumerate(times):
        drawn = np.repeat(np.arange(5), count).tolist()
        tree = truth(
            [
                {**true[i], "classes": [min(c, 2) for c in true[i]["classes"]], "image_id": n}
                for n, i in enumerate(drawn)
            ],
            names,
        )
        expected, by_class = average_precision(
            tree, [{**hit, "image_id": n} for n, i in enumerate(drawn) for hit in own[i]], kind
        )
        everything = expected | {f"AP50 {name}": value for name, value in by_class.items()}
        assert set(again) == set(everything) and np.isnan(everything["AP50 d"])
        for name, value in everything.items():
            assert again[name][row] == pytest.approx(value, nan_ok=True), name
