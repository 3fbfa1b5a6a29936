"""A folder by its vectors: found as the model itself ranks, brought up to date, never another model's."""

import os

import clients
import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.hf.predict import load_model
from generalist.serve.index import Index

pytest.importorskip("faiss", reason="needs the extra serve")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    out = tmp_path_factory.mktemp("indexed") / "model"
    clients.save(out)
    return out


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "things"
    (out / "deep").mkdir(parents=True)
    for seed in range(70):  # more than one pass
        Image.fromarray(clients.picture(12, 8, seed)).save(out / "deep" / f"{seed}.png")
    (out / "words.txt").write_text("a red seven")
    (out / "table.csv").write_text("a,b\n1,2\n")
    (out / ".hidden.png").write_bytes(b"x")
    return out


def test_the_nearest_are_those_of_the_model(home, folder, tmp_path, capsys):
    assert main(["index", str(home), str(folder), "--out", str(tmp_path / "index")]) == 0
    assert "71 items" in capsys.readouterr().out
    model, processor = load_model(home)
    index = Index(tmp_path / "index", model, processor, folder)
    text = model.encode(processor(text=["a blue nine"]), side="candidate").detach().numpy()
    pictures = model.encode([processor(image=[str(folder / "deep" / f"{n}.png")])[0] for n in range(70)])
    cosines = (pictures.detach().numpy() @ text.T)[:, 0]
    found = dict(index.search("text", "a blue nine", 71))
    np.testing.assert_allclose([found[f"deep/{n}.png"] for n in range(70)], cosines, atol=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    own = index.search("image", str(folder / "deep" / "5.png"), 1)
    assert own[0][0] == "deep/5.png" and own[0][1] == pytest.approx(1, abs=1e-4)
    assert main(["search", str(tmp_path / "index"), "--text", "a red seven", "--most", "1"]) == 0
    assert "words.txt" in capsys.readouterr().out


def test_it_is_brought_up_to_date(home, folder, tmp_path):
    model, processor = load_model(home)
    first = Index(tmp_path / "index", model, processor, folder).update()
    assert (first.made, first.kept, first.gone, first.unread) == (71, 0, 0, {})
    (folder / "deep" / "3.png").unlink()
    Image.fromarray(clients.picture(12, 8, 99)).save(folder / "deep" / "4.png")
    os.utime(folder / "deep" / "4.png", ns=(1, 1))
    (folder / "broken.png").write_bytes(b"no picture")
    index = Index(tmp_path / "index", model, processor, folder)
    kept = dict(zip(index.items, index.vectors, strict=True))
    again = index.update()
    assert (again.made, again.kept, again.gone, list(again.unread)) == (1, 69, 2, ["broken.png"])
    for item, vector in zip(index.items, index.vectors, strict=True):
        if item in kept:
            np.testing.assert_array_equal(kept[item], vector)
    nearest = Index(tmp_path / "index", model, processor, folder).search("image", str(folder / "deep" / "4.png"), 1)
    assert nearest[0][0] == "deep/4.png"


def test_mistakes_are_one_line(home, folder, tmp_path, capsys):
    model, processor = load_model(home)
    Index(tmp_path / "index", model, processor, folder).update()
    model.encoder.layers[0].norm1.weight.data += 1
    with pytest.raises(UserError, match="another model"):
        Index(tmp_path / "index", model, processor, folder)
    assert main(["search", str(tmp_path / "no"), "--text", "a"]) == 2
    assert "is no index" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "index")]) == 2
    assert main(["index", str(home), str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    (tmp_path / "index" / "vectors.npy").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be read"):
        Index(tmp_path / "index", *load_model(home), folder)
