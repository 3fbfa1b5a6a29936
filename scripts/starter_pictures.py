"""The starter in pictures: icons of unseen sets found by a sentence, transfer by share of the labels, and its space.

    python -m scripts.starter_pictures DATA [--model starter]    # DATA: what scripts.starter_data wrote

scripts/bench_results/starter_found.png, starter_transfer.png (of the lines in starter.json) and starter_space.png
(`scripts.starter_space`). A minute and a half on one core.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generalist.data.base.errors import UserError
from generalist.data.sources.shards import Shards
from generalist.hf.model import GeneralistModel
from generalist.hf.predict import load
from scripts.starter_card import RESULTS
from scripts.starter_space import draw, shown
from scripts.starter_unseen import column, encode

ASKED = (
    "a cup of hot coffee",
    "somebody on a bicycle",
    "it is raining",
    "listening to music",
    "a locked door",
    "send a letter",
    "money in the bank",
    "up and to the right",
)
SHOWN = 8
SHARES = ("1%", "2%", "5%", "10%", "100%")
SIDES = {"starter": "starter", "begun": "ImageNet's stages, the rest random", "random": "all weights random"}
COLOURS = {"starter": "#0b6e4f", "begun": "#d08c00", "random": "#888888"}


def pixels(raw: Any) -> np.ndarray:
    """UInt8[h w 3] of a picture or a file's bytes."""
    from PIL import Image

    return np.asarray((Image.open(io.BytesIO(raw)) if isinstance(raw, bytes) else raw).convert("RGB"))


def nearest(model: GeneralistModel, sets: Path) -> list[tuple[str, list[np.ndarray]]]:
    """For each sentence the nearest icons of sets that training never saw, UInt8[h w 3], the same drawing once."""
    held = Shards(str(sets / "icons")).open("test")
    raws = column(held, "image")
    scores = encode(model, "text", ASKED) @ encode(model, "image", raws).T
    found = []
    for words, row in zip(ASKED, scores, strict=True):
        shown: dict[bytes, np.ndarray] = {}
        for i in row.topk(3 * SHOWN).indices.tolist():
            one = pixels(raws[i])
            shown.setdefault(one.tobytes(), one)
        found.append((words, list(shown.values())[:SHOWN]))
    return found


def draw_found(found: list[tuple[str, list[np.ndarray]]], out: Path) -> None:
    """A row a sentence, the likest icon first."""
    import matplotlib.pyplot as plt

    figure, places = plt.subplots(len(found), SHOWN, figsize=(SHOWN * 0.62 + 2.2, len(found) * 0.62))
    for (words, pictures), row in zip(found, places, strict=True):
        row[0].text(-0.25, 0.5, words, ha="right", va="center", fontsize=9, transform=row[0].transAxes)
        for place, picture in zip(row, pictures, strict=False):
            place.imshow(picture)
        for place in row:
            place.axis("off")
    figure.subplots_adjust(left=0.3, right=0.99, top=0.99, bottom=0.01, wspace=0.15, hspace=0.15)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def curves(measured: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """{(set, method): {side: {share: accuracy}}} of the lines that are shares of labels."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for line in measured["lines"]:
        method, _, share = line["measure"].partition(" ")
        if share in SHARES:
            for side in SIDES.keys() & line.keys():
                found.setdefault((line["what"], method), {}).setdefault(side, {})[share] = line[side][0]
    return found


def draw_transfer(measured: dict[str, Any], out: Path) -> None:
    """A picture a set: a linear probe at every share as lines, other methods as marks."""
    import matplotlib.pyplot as plt

    found = curves(measured)
    sets = list(dict.fromkeys(name for name, _ in found))
    if not sets:
        raise UserError(f"{RESULTS} has no lines of transfer; run python -m scripts.starter_table first")
    rows = -(-len(sets) // 3)
    figure, places = plt.subplots(rows, 3, figsize=(9, 2.3 * rows), squeeze=False)
    marks = {"prompts": "^", "lora": "s", "full": "o"}
    for place in places.flat[len(sets) :]:
        place.axis("off")
    for name, place in zip(sets, places.flat, strict=False):
        for (own, method), sides in found.items():
            for side, values in sides.items() if own == name else ():
                x, y = [SHARES.index(share) for share in values], list(values.values())
                style = "-" if method == "probe" else marks[method]
                place.plot(x, y, style, color=COLOURS[side], markersize=4, linewidth=1.5, alpha=0.9)
        place.set_title(name, fontsize=9)
        place.set_xticks(range(len(SHARES)), SHARES, fontsize=7)
        place.tick_params(axis="y", labelsize=7)
    lines = [plt.Line2D([], [], color=COLOURS[side]) for side in SIDES]
    lines += [plt.Line2D([], [], color="black", marker=mark, linestyle="") for mark in marks.values()]
    words = [f"{label}, linear probe" for label in SIDES.values()] + list(marks)
    figure.legend(lines, words, ncol=3, fontsize=7, loc="lower center")
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=RESULTS.parent)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model, _ = load(args.model)
    draw_transfer(json.loads(args.results.read_text()), args.out / "starter_transfer.png")
    draw_found(nearest(model, args.data), args.out / "starter_found.png")
    draw(shown(model, args.data), args.out / "starter_space.png")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"starter_pictures: {error}")
