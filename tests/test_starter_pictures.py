"""The starter's pictures: what is drawn of the kept lines, and icons that a sentence finds."""

import io

import pytest
import torch
from PIL import Image

from generalist.data.base.errors import UserError
from scripts import starter_pictures, starter_space
from scripts.starter_pictures import ASKED, SHOWN, curves, draw_found, draw_transfer, nearest


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (32, 32), grey).save(buffer, "PNG")
    return buffer.getvalue()


LINES = {
    "lines": [
        {"what": "digits", "measure": "probe 1%", "random": [0.2, 0.1], "starter": [0.5, 0.1]},
        {"what": "digits", "measure": "probe 100%", "starter": [0.9]},
        {"what": "digits", "measure": "full 2%", "starter": [0.7, 0.1]},
        {"what": "icons of unseen sets", "measure": "R@1 of 1000", "starter": [0.2, 0.1]},
    ]
}


def test_shares_of_labels_are_drawn_and_nothing_else(tmp_path):
    found = curves(LINES)
    assert found["digits", "probe"] == {"random": {"1%": 0.2}, "starter": {"1%": 0.5, "100%": 0.9}}
    assert {name for name, _ in found} == {"digits"}
    draw_transfer(LINES, tmp_path / "t.png")
    assert Image.open(tmp_path / "t.png").width > 300
    with pytest.raises(UserError, match="no lines of transfer"):
        draw_transfer({"lines": []}, tmp_path / "none.png")


def test_the_likest_icons_come_first_and_a_drawing_once(tmp_path, monkeypatch):
    raws = [png(grey) for grey in range(40)] + [png(7)]
    turned = torch.eye(41)
    turned[40] = turned[7]
    monkeypatch.setattr(starter_pictures, "column", lambda records, name: raws)
    monkeypatch.setattr(starter_pictures, "Shards", lambda path: type("S", (), {"open": lambda self, split: None})())
    asked = torch.zeros(len(ASKED), 41)
    asked[:, 7], asked[:, 3] = 2, 1
    monkeypatch.setattr(starter_pictures, "encode", lambda model, kind, raw: turned if kind == "image" else asked)
    found = nearest(None, tmp_path)
    assert [words for words, _ in found] == list(ASKED)
    greys = [int(one[0, 0, 0]) for one in found[0][1]]
    assert greys[:2] == [7, 3] and len(set(greys)) == SHOWN
    draw_found(found, tmp_path / "f.png")
    assert Image.open(tmp_path / "f.png").height > 300


def test_every_modality_has_its_mark_and_what_it_has_in_common_is_taken_out(tmp_path, monkeypatch):
    shift = torch.tensor([5.0, 0.0, 0.0, 0.0])  # of one modality against the others
    monkeypatch.setattr(starter_space, "encode", lambda model, modality, raws: torch.stack(list(raws)) + shift)
    found = [
        starter_space.centred(None, modality, torch.randn(12, 4, generator=torch.Generator().manual_seed(i)), "ab" * 6)
        for i, modality in enumerate(starter_space.KINDS)
    ]
    for one in found:
        assert abs(float(one.features[:, 0].mean())) < 0.4 and torch.allclose(one.features.norm(dim=-1), torch.ones(12))
    starter_space.draw(found, tmp_path / "space.png")
    assert Image.open(tmp_path / "space.png").width > 500
    assert starter_space.some(["b", "a", "b"], ["a", "b"]) == [1, 0, 2]
