"""Icons of unseen sets found by sentences, as a picture: each line asks, the eight nearest of 7,734 answer.

python -m scripts.starter_picture DATA [--out scripts/bench_results/starter.png]
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from generalist.data.base.errors import UserError
from generalist.data.sources.shards import Shards
from generalist.hf.predict import load
from scripts.starter_unseen import column, encode

ASKED = (
    "a cloud with lightning",
    "something to cut paper with",
    "send a letter",
    "an arrow that points to the left",
    "a cup of hot coffee",
    "lock the door",
    "a person in a wheelchair",
    "turn the volume up",
)
FOUND, SIDE, WORDS = 8, 40, 300
OUT = Path(__file__).parent / "bench_results" / "starter.png"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="what scripts.starter_data wrote")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    model, _ = load("starter")
    shown = column(Shards(str(args.data / "icons")).open("test"), "image")
    near = (encode(model, "text", list(ASKED)) @ encode(model, "image", shown).T).topk(FOUND).indices.tolist()
    page = Image.new("RGB", (WORDS + FOUND * SIDE, len(ASKED) * SIDE), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for row, (words, places) in enumerate(zip(ASKED, near, strict=True)):
        pen.text((8, row * SIDE + 10), words, fill="black", font=font)
        for number, place in enumerate(places):
            picture = shown[place]
            opened = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
            page.paste(opened.convert("RGB"), (WORDS + number * SIDE + 4, row * SIDE + 4))
    page.save(args.out, optimize=True)
    print(args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"starter_picture: {error}")
