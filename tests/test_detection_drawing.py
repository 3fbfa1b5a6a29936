"""Detections drawn: names inside the picture, beside one another, in the colour of their name."""

import numpy as np
import pytest
from PIL import Image

from generalist.hf.detection import COLOURS, draw, place, shared


def hit(label: str, left: float, top: float, size: float = 20, score: float = 0.5) -> dict:
    box = {"xmin": left, "ymin": top, "xmax": left + size, "ymax": top + size}
    return {"label": label, "score": score, "box": box}


def pixels_of(drawn, colour: str) -> np.ndarray:
    return (np.asarray(drawn) == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1)


@pytest.mark.parametrize("corner", [(200, 1), (3, 60), (217, 100)], ids=["top", "left", "right"])
def test_names_are_drawn_inside_the_picture(corner):
    left, top = corner
    box = {"xmin": left, "ymin": top, "xmax": min(left + 20, 219), "ymax": top + 20}
    drawn = np.asarray(draw(Image.new("RGB", (220, 130)), [{"label": "a long name", "score": 0.5, "box": box}]))
    colour = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
    plate = (drawn == colour).all(-1)
    rows, columns = np.nonzero(plate[: max(top, 12)])  # above the box, or where there is no room, over it
    assert columns.max() - columns.min() > 60 and rows.max() - rows.min() >= 8
    assert (drawn.min(-1) > 120).sum() > 20  # the letters


def test_names_of_boxes_that_lie_together_do_not_cover_one_another():
    plates: list = []
    for left in (40, 44, 48, 52):  # nearly one box four times
        plates.append(place([left, 50, left + 60, 90], (56, 12), (220, 130), plates))
    together = sum(shared(a, b) for i, a in enumerate(plates) for b in plates[:i])
    assert together == 0
    assert all(p[0] >= 0 and p[2] <= 220 and p[1] >= 0 and p[3] <= 130 for p in plates)


def test_a_name_has_one_colour_in_every_picture_it_was_asked_of():
    blank = Image.new("RGB", (220, 130))
    asked = ["cell", "seed"]
    one = draw(blank, [hit("seed", 60, 60)], asked)
    both = draw(blank, [hit("seed", 60, 60), hit("cell", 150, 60)], asked)
    assert pixels_of(one, COLOURS[1]).any() and not pixels_of(one, COLOURS[0]).any()
    assert pixels_of(both, COLOURS[1])[:, :140].any() and pixels_of(both, COLOURS[0])[:, 140:].any()


def test_small_pictures_can_be_drawn_larger_with_their_masks():
    mask = np.zeros((30, 50), dtype=bool)
    mask[10:20, 20:40] = True
    drawn = draw(Image.new("RGB", (50, 30)), [{**hit("seed", 20, 10), "mask": mask}], enlarge=3)
    assert drawn.size == (150, 90)
    tinted = np.asarray(drawn).max(-1)
    assert tinted[55, 110] > 60 and tinted[85, 10] == 0  # in the mask's larger place, and outside


def test_a_deep_grey_picture_is_drawn_as_the_model_saw_it():
    deep = np.full((40, 60), 65535 // 2, dtype=np.uint16)
    drawn = np.asarray(draw(Image.fromarray(deep), [hit("seed", 20, 15)]))
    assert drawn[35, 5].tolist() == [127, 127, 127]  # not white, which PIL's own conversion would make of it
