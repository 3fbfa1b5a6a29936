"""What the pages' code speaks of, small and made up: photos/, train.csv, runs/demo ... in one folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
from people_data import KINDS, picture, wave

from generalist.cli import main

ROOT = Path(__file__).resolve().parent.parent
MELODIES = ("melody.py", "melody_recipe.py")
RECIPES = ("my_recipe.py", "my.py")


def forget() -> None:
    """One process reads the same names of recipes in several folders."""
    for name in (*MELODIES, *RECIPES):
        sys.modules.pop(name.removesuffix(".py"), None)


def write(folder: Path) -> None:
    """Every file that a page names and that is no model."""
    import soundfile

    for i in range(120):
        kind = i % 2
        for parent in ("photos", "digits"):
            path = folder / parent / KINDS[kind] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(kind, i).save(path)
        path = folder / "sounds" / KINDS[kind] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave(kind, i), 8000)
    for name in ("a", "b", "seven", "street", "FILE"):
        picture(0, 7).save(folder / f"{name}.png")
    (folder / "FILE.png").rename(folder / "FILE")
    draw = np.random.default_rng(0)
    rooms, size = draw.integers(1, 7, 120), draw.normal(70, 20, 120).round(1)
    rows = [f"{r},{s},{1000 * r + 50 * s:.0f}" for r, s in zip(rooms, size, strict=True)]
    (folder / "train.csv").write_text("\n".join(["rooms,size,price", *rows]) + "\n")
    (folder / "new.csv").write_text("rooms,size\n3,70\n5,120\n")
    (folder / "income.csv").write_text("\n".join(["age,income", *(f"{20 + i % 40},{i % 3}" for i in range(60))]) + "\n")
    hours = [f"2024-01-{1 + t // 24:02d} {t % 24:02d}:00" for t in range(600)]
    level = 5 + 3 * np.sin(np.arange(600) / 4) + draw.normal(size=600)
    load = [f"{time},{meter},{level[t]:.3f}" for meter in "ab" for t, time in enumerate(hours)]
    (folder / "load.csv").write_text("\n".join(["time,meter,load", *load]) + "\n")
    topics = [f"a {word} of number {i},{word}" for i in range(12) for word in KINDS]
    (folder / "texts.csv").write_text("\n".join(["text,topic", *topics]) + "\n")
    for name in MELODIES:
        (folder / "tests" / "examples").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / "examples" / name, folder / "tests" / "examples" / name)
        shutil.copy(ROOT / "tests" / "examples" / name, folder / name)
    for name in RECIPES:
        shutil.copy(ROOT / "tests" / "tiny.py", folder / name)


def trained(folder: Path) -> Path:
    """The same with a small run that stands for runs/demo, and another that has checkpoints."""
    if (folder / "runs" / "kept" / "model").is_dir():  # made by another file of tests in this process
        return folder
    folder.mkdir(exist_ok=True)
    write(folder)
    forget()
    home = Path.cwd()
    os.chdir(folder)
    try:
        for line in (
            "fit digits/ --time 1s --no-baseline --no-encoder --out runs/demo --quiet",
            "index runs/demo photos/ --out photos.index --quiet",
            "train my_recipe.py --out runs/kept",
        ):
            assert main(shlex.split(line)) == 0, line
    finally:
        os.chdir(home)
    return folder
