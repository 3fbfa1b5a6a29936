"""Pictures with what a model finds in them, side by side in one small PNG: the README's are drawn with it.

python -m scripts.detections runs/detect_tiny --images A.jpg B.jpg --names RBC WBC Platelets --out detections.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from generalist.hf.detection import detect, draw
from generalist.hf.predict import load_model

GAP = 8  # pixels between two pictures


def side_by_side(pictures: list[Any]) -> Any:
    """One picture of them all in a row, on white."""
    width = sum(p.width for p in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a model finds in some pictures, side by side.")
    parser.add_argument("model", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("--images", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--names", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--threshold", type=float, default=0.4, help="smallest probability that is drawn")
    parser.add_argument("--enlarge", type=int, default=2, metavar="TIMES", help="draw the pictures so much larger")
    parser.add_argument("--colours", type=int, default=256, help="of the PNG: fewer make a smaller file")
    parser.add_argument("--out", type=Path, default=Path("detections.png"))
    args = parser.parse_args(argv)
    model, processor = load_model(args.model)
    drawn = []
    for path in args.images:
        found = detect(model, processor, path, args.names, args.threshold)
        print(f"{path}: {len(found)} found")
        drawn.append(draw(path, found, args.names, args.enlarge))
    row = side_by_side(drawn)
    row.quantize(args.colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(args.out, optimize=True)
    print(f"{args.out}: {row.width} x {row.height}, {args.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
