"""Embedded images: handwritten digits with classes, and font glyphs with their Unicode names as text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.sources.embedded.files import package_file
from generalist.data.sources.embedded.split import deal, digest, records, unique
from generalist.data.stream.source import Records

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# Files under matplotlib's fonts/ttf; val and test use the first.
FONTS = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Oblique",
    "STIXGeneral",
)

# First and last code point of the Unicode blocks used. Greek Extended is left out: its breathing marks
# differ by one or two pixels at these sizes.
BLOCKS = (
    (0x0021, 0x02AF),  # Latin, its extensions, IPA
    (0x0370, 0x052F),  # Greek, Cyrillic
    (0x0531, 0x058F),  # Armenian
    (0x10A0, 0x10FF),  # Georgian
    (0x1E00, 0x1EFF),  # Latin Extended Additional
    (0x2010, 0x205E),  # punctuation
    (0x2070, 0x209F),  # superscripts and subscripts
    (0x20A0, 0x20BF),  # currency
    (0x2100, 0x22FF),  # letterlike, number forms, arrows, mathematical operators
    (0x2460, 0x24FF),  # enclosed
    (0x2500, 0x25FF),  # box drawing, blocks, geometric shapes
)

ALIKE = 0.98  # cosine of two renderings from which one counts as the other (Latin A, Greek Alpha, ...)


def digits(seed: int = 0, size: int = 16) -> dict[str, Records]:
    """Handwritten digits: {"id", "image": uint8 [size, size], "label": 0..9}; size is a multiple of 8.

    The original 8x8 pixels of 0..16 are repeated, not interpolated, and scaled to 0..255.
    Source: UCI optical recognition of handwritten digits (test part), as shipped by scikit-learn.
    """
    if size < 8 or size % 8:
        raise UserError(f"digits: size={size} must be a multiple of 8, such as 8 or 16")
    loaded = np.loadtxt(package_file("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    pixels = np.round(loaded[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pixels = pixels.repeat(size // 8, axis=1).repeat(size // 8, axis=2)
    rows = [
        {"id": f"digits/{i}", "image": image, "label": int(label)}
        for i, (image, label) in enumerate(zip(pixels, loaded[:, -1], strict=True))
    ]
    parts = deal(unique(rows, "image"), seed, by="label")
    return records(parts, classes=DIGITS, synthetic=False, about="handwritten digits, 8x8 pixels, from scikit-learn")


def words(name: str) -> list[str]:
    """The words of a character's name, lower-cased: 'LESS-THAN SIGN' -> less, than, sign."""
    return re.findall(r"\w+", name.lower())


def glyphs(seed: int = 0, size: int = 24, held_out: int = 160) -> dict[str, Records]:
    """Characters drawn in several fonts, with their names: images with real text.

    {"id", "image": uint8 [size, size] (white on black), "text": lower-cased Unicode name, "character",
    "font"}. val and test hold `held_out` characters each, in one font; none of these is in training in
    any font, and every word of their names occurs in the name of some training character. Characters
    that look like an earlier one in the main font are left out, since their names cannot be told from
    the image. In training a character's text repeats once a font.
    Source: DejaVu and STIX fonts shipped by matplotlib; names from Python's unicodedata.
    """
    main = _draw(FONTS[0], size)
    names = {char: unicodedata.name(char).lower() for char in _distinct(main)}
    held = _hold_out(names, 2 * held_out, seed)
    places = {"val": held[:held_out], "test": held[held_out:]}
    parts = {split: [_row(FONTS[0], c, main[c], names[c]) for c in chars] for split, chars in places.items()}

    seen = {digest(row["image"]) for rows in parts.values() for row in rows}
    train = []
    for font in FONTS:
        drawn = main if font == FONTS[0] else _draw(font, size)
        for char, name in names.items():
            if char in drawn and char not in held:
                row = _row(font, char, drawn[char], name)
                key = digest(row["image"])
                if key not in seen:  # look-alikes in another font, or equal to a held-out image
                    seen.add(key)
                    train.append(row)
    parts["train"] = train
    about = "characters in DejaVu and STIX fonts from matplotlib, with their Unicode names"
    return records({split: parts[split] for split in ("train", "val", "test")}, synthetic=False, about=about)


def _row(font: str, char: str, image: np.ndarray, name: str) -> dict:
    return {"id": f"glyphs/{font}/U+{ord(char):04X}", "image": image, "text": name, "character": char, "font": font}


def _draw(font: str, size: int) -> dict[str, np.ndarray]:
    """The characters of BLOCKS that the font has and that fit: char -> uint8 [size, size], common baseline."""
    from fontTools.ttLib import TTFont
    from PIL import Image, ImageDraw, ImageFont

    path = str(package_file("matplotlib", f"mpl-data/fonts/ttf/{font}.ttf"))
    with TTFont(path, lazy=True) as file:
        has = file.getBestCmap()  # a character outside it would be drawn as the .notdef box
    # BASIC layout: the result must not depend on whether libraqm is installed.
    face = ImageFont.truetype(path, round(size * 2 / 3), layout_engine=ImageFont.Layout.BASIC)
    baseline = size * 3 // 4
    drawn = {}
    for code in sorted(has):
        char = chr(code)
        wanted = any(first <= code <= last for first, last in BLOCKS) and bool(unicodedata.name(char, ""))
        if not wanted or unicodedata.category(char)[0] not in "LNSP":
            continue
        left, top, right, bottom = face.getbbox(char, anchor="ms")
        if not 0 < right - left <= size or top < -baseline or bottom > size - baseline:
            continue
        image = Image.new("L", (size, size))
        middle = (size / 2 - (left + right) / 2, baseline)
        ImageDraw.Draw(image).text(middle, char, fill=255, font=face, anchor="ms")
        pixels = np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(size, size).copy()
        if pixels.any():
            drawn[char] = pixels
    return drawn


def _distinct(drawn: dict[str, np.ndarray]) -> list[str]:
    """The characters, in code point order, that do not look like an earlier kept one."""
    flat = np.stack([image.ravel() for image in drawn.values()]).astype(np.float32)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    alike = np.tril(flat @ flat.T >= ALIKE, -1)
    kept = np.ones(len(flat), bool)
    for i in range(len(flat)):
        kept[i] = not (alike[i] & kept).any()
    return [char for char, keep in zip(drawn, kept, strict=True) if keep]


def _hold_out(names: dict[str, str], count: int, seed: int) -> list[str]:
    """`count` characters, by seed, such that each word of their names stays in >= 2 other names."""
    left = Counter(word for name in names.values() for word in set(words(name)))
    held: list[str] = []
    chars = list(names)
    for i in np.random.default_rng(seed).permutation(len(chars)):
        own = set(words(names[chars[i]]))
        if len(held) < count and all(left[word] > 2 for word in own):
            held.append(chars[i])
            left.subtract(own)
    if len(held) < count:
        raise UserError(f"glyphs: only {len(held)} characters can be held out, so held_out must be <= {len(held) // 2}")
    return held
