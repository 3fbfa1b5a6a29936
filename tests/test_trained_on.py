"""Leakage is looked for in what the run trained on, and pictures saved again at any size and quality are found."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.folder import Folder
from generalist.data.tools.alike import Looks
from generalist.evaluate.trained_on import recipe_of, trained_on
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify

R = Image.Resampling


def noise(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8))


def drawing(number: int) -> Image.Image:
    """A few large blots."""
    small = np.random.default_rng(number).integers(0, 255, (5, 5), dtype=np.uint8)
    return Image.fromarray(small).resize((28, 28), R.BICUBIC)


def sized(picture: Image.Image, factor: float, how: int = R.BICUBIC) -> Image.Image:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), how)


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


CHANGES = {
    "twice, nearest": lambda p: sized(p, 2, R.NEAREST),
    "twice": lambda p: sized(p, 2),
    "three times": lambda p: sized(p, 3, R.LANCZOS),
    "half as large again": lambda p: sized(p, 1.5, R.BILINEAR),
    "half": lambda p: sized(p, 0.5),
    "quality 40": lambda p: jpeg(p, 40),
    "twice, quality 60": lambda p: jpeg(sized(p, 2), 60),
    "on white": lambda p: p.convert("RGBA"),
    "16 bits": lambda p: Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("made", [noise, drawing])
def test_pictures_saved_again_are_found_and_no_others(made, change):
    held, asked = Looks(), Looks()
    for i in range(60):
        held.add(str(i), {"image": made(i)})
    for i in range(0, 120, 2):
        asked.add(str(i), {"image": CHANGES[change](made(i))})
    assert list(held.pairs()) == []
    assert list(asked.pairs(held)) == [(str(i), str(i)) for i in range(0, 60, 2)]


def fill(folder, split, names, numbers, change=lambda p: p):
    for i in numbers:
        path = folder / split / names[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        change(noise(i)).save(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("run")
    names = ["cat", "dog"]
    for split, numbers in (("train", range(20)), ("val", range(30, 34)), ("test", range(40, 44))):
        fill(base / "own", split, names, numbers)
    recipe = tiny(steps=1, modalities__image__channels=3)
    recipe.tasks = [
        Classify(name="pets", source=Folder(str(base / "own"), "photo"), inputs={"image": "photo"}, batch=4)
    ]
    train_run(recipe, base / "run", quiet=True)
    return base


def test_leakage_is_looked_for_in_what_the_run_was_trained_on(run, tmp_path, capsys):
    names = ["cat", "dog"]
    fill(tmp_path, "train", names, range(60, 66))  # another set, with a training split of its own
    fill(tmp_path, "test", names, range(70, 74))
    fill(tmp_path, "test", names, range(5, 8), lambda p: sized(p, 2))
    fill(tmp_path, "test", names, range(60, 62))  # known to the set's own training split alone
    for model in (run / "run", run / "run" / "model"):
        capsys.readouterr()
        assert main(["eval", str(model), str(tmp_path), "--input", "image", "--leakage", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["leakage"]
        assert found["compared"] == {
            "training": 20,
            "evaluation": 9,
            "fields": ["image"],
            "with": "what the run was trained on (recipe.json)",
        }
        pairs = {(s["id"].split("/")[-1], s["training"]) for s in found["samples"]}
        assert pairs == {(f"{i}.png", f"pets: {names[i % 2]}/{i}.png") for i in (5, 6, 7)}
    assert (
        main(["eval", str(run / "run"), str(tmp_path), "--input", "image", "--leakage", str(tmp_path), "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)["leakage"]
    assert found["exact"] == 2 and found["count"] == 2


def test_runs_that_a_run_began_from_count_too_and_other_modalities_do_not(run, tmp_path):
    saved = json.loads((run / "run" / "recipe.json").read_text())
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "recipe.json").write_text(json.dumps(saved | {"init": str(run / "run" / "model")}))
    records, fields = trained_on(tmp_path / "next", {"image": "x", "text": "y"})
    assert len(records) == 40 and fields == {"x"}
    assert records[25]["id"] == records[5]["id"] and set(records[25]) == {"id", "x"}
    assert recipe_of(tmp_path) is None and trained_on(tmp_path, {"image": "x"}) is None
    with pytest.raises(UserError, match="was trained on image, on none of audio"):
        trained_on(run / "run", {"audio": "sound"})
