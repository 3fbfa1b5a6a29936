"""The data of the recipe `starter`: free pictures and sounds with words, as shards without anything it is measured on.

    python -m scripts.starter_data OUT --with DATA        # from a folder of sets: icons, emoji_text, esc10_audio
    python -m scripts.starter_data OUT                    # icons drawn anew from npm's @iconify/json
    generalist data validate OUT/icons --against SRC       # what is checked here can be checked again

OUT/icons, OUT/emoji and OUT/sounds hold shards, OUT/LICENCES.md what they are under, OUT/left_out.json how many samples
were left out and why. About three minutes on one core. What the recipe generates itself or finds in installed libraries
(glyphs, solids, tones, tables, series) needs no files.

Left out of training: pictures that look like one that the starter is measured on (`generalist.data.tools.alike`), and
in sets of emoji everything that is called like an emoji of the test split or of the categories kept apart. Pictures
that look like a drawn digit, garment, chest or photograph of the transfer sets go too. Sets whose licence asks that
works made from them be shared alike (CC BY-SA), or that state none, are not trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.local import Arrays
from generalist.data.stream.source import Record, Records
from generalist.data.tools.alike import Looks, plain_words
from generalist.data.tools.shard_writer import Plan, write_split
from scripts.starter_icons import drawn_icons

APART = ("Food & Drink", "Animals & Nature", "Activities")  # categories of emoji that training never shows
EMOJI_SETS = frozenset(
    {
        "noto",
        "noto-v1",
        "emojione",
        "emojione-monotone",
        "fluent-emoji",
        "fluent-emoji-flat",
        "fxemoji",
        "streamline-emojis",
    }
)
TONES = frozenset(["skin", "tone", "light", "medium", "dark"])
TEST_SOUNDS, VAL_SOUNDS = 4, 3  # folds
SILENT = "Rain"  # the class of sounds that is known by its name alone
SAMPLING = ("1-40730-A", "2-96460-A")  # clips under Sampling+ 1.0, which is no free licence


@dataclass
class Given:
    """Records that are at hand, by split."""

    name: str
    splits: dict[str, list[Record]] = field(repr=False)
    about: str = ""

    def open(self, split: str) -> Records:
        if split not in self.splits:
            raise UserError(f"{self.name}: no split {split!r}")
        return Records(self.splits[split], {"about": self.about, "synthetic": False})


def parquet(path: Path) -> list[dict[str, Any]]:
    """Rows of a parquet file. UserError where there is none."""
    import pandas

    if not path.is_file():
        raise UserError(f"no {path}; give --with the folder that holds it")
    return pandas.read_parquet(path).to_dict("records")


def icons(data: Path) -> dict[str, list[Record]]:
    """The splits of icons/: id, image (PNG), text (its name), set."""
    return {
        split: [
            {"id": f"{row['set']}/{row['icon']}", "image": row["picture"], "text": row["name"], "set": row["set"]}
            for row in parquet(data / "icons" / f"{split}.parquet")
        ]
        for split in ("train", "val", "test")
    }


def emoji(data: Path) -> dict[str, list[Record]]:
    """The splits of emoji_text/; training without the categories kept apart."""
    found = {}
    for split in ("train", "val", "test"):
        rows = parquet(data / "emoji_text" / f"{split}.parquet")
        found[split] = [
            {
                "id": f"{row['style']}/{row['codepoints']}",
                "image": row["image_png"],
                "text": row["description"],
                "category": row["category"],
                "names": [row["description"], *row["aliases"]],
            }
            for row in rows
        ]
    return found


def without_tone(name: str) -> str:
    """The words of an emoji's name without a tone of skin at its end."""
    words = plain_words(name).split()
    while words and words[-1] in TONES:
        words.pop()
    return " ".join(words)


def sounds(data: Path) -> dict[str, list[Record]]:
    """The folds of esc10_audio/ as sounds and sentences, training without the class that is known by name alone."""
    import pandas

    place = data / "esc10_audio"
    if not (place / "meta.csv").is_file():
        raise UserError(f"no {place / 'meta.csv'}; give --with the folder that holds it")
    found: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for row in pandas.read_csv(place / "meta.csv").to_dict("records"):
        split = {TEST_SOUNDS: "test", VAL_SOUNDS: "val"}.get(row["fold"], "train")
        stem = Path(row["file"]).stem
        if stem in SAMPLING or (split != "test" and row["label_name"] == SILENT):
            continue
        words = f"the sound of {row['label_name'].lower()}"
        found[split].append({"id": stem, "audio": place / row["file"], "text": words, "class": row["label_name"]})
    return found


def measured(data: Path, own: dict[str, dict[str, list[Record]]]) -> dict[str, Looks]:
    """What the pictures that the starter is measured on look like, by set."""
    found = {name: Looks() for name in ("icons", "emoji", "glyphs", "digits", "fashion_mnist", "cifar10", "pneumonia")}
    for row in own["icons"]["test"]:
        found["icons"].add(row["id"], {"image": row["image"]})
    for split, rows in own["emoji"].items():
        for row in rows:
            if split == "test" or row["category"] in APART:
                found["emoji"].add(row["id"], {"image": row["image"]})
    sets = {"glyphs": Embedded("glyphs"), "digits": Embedded("digits")} | transfer(data)
    for name, source in sets.items():
        records = source.open("test")
        for i in range(len(records)):
            found[name].add(str(i), {"image": records[i]["image"]})
    return found


def transfer(data: Path) -> dict[str, Any]:
    """Test pictures of the transfer sets that lie in the folder."""
    sets = {
        "fashion_mnist": Arrays(str(data / "fashion_mnist/fashion_mnist.npz"), {"image": "x_{split}"}),
        "cifar10": Arrays(str(data / "cifar10_subset/{split}.parquet"), {"image": "picture:image_jpg"}),
        "pneumonia": Arrays(str(data / "pneumonia_xray28/pneumonia28.npz"), {"image": "x_{split}"}, {"test": "val"}),
    }
    return {name: source for name, source in sets.items() if Path(source.path).parent.is_dir()}


def keep_apart(own: dict[str, dict[str, list[Record]]], looks: dict[str, Looks]) -> Counter:
    """Take out of training and validation what the starter is measured on; how many by reason."""
    held = {
        without_tone(name)
        for split, rows in own["emoji"].items()
        for row in rows
        if split == "test" or row["category"] in APART
        for name in row["names"]
    }
    gone: Counter = Counter()
    for name in ("icons", "emoji"):
        for split in ("train", "val"):
            rows = own[name][split]
            seen = Looks()
            for row in rows:
                seen.add(row["id"], {"image": row["image"]})
            alike = {one: other for other, theirs in looks.items() for one, _ in seen.pairs(theirs)}
            kept: list[Record] = []
            known: set[tuple[bytes, str]] = set()
            for row in rows:
                called = row.get("set") in EMOJI_SETS and without_tone(row["text"]) in held
                if row.get("category") in APART:
                    reason = "a category kept apart"
                elif called:
                    reason = "called like an emoji kept apart"
                elif row["id"] in alike:
                    reason = f"looks like a test picture of {alike[row['id']]}"
                elif (row["image"], row["text"]) in known:
                    reason = "the same picture and name twice"
                else:
                    known.add((row["image"], row["text"]))
                    kept.append(row)
                    continue
                gone[f"{name} {split}: {reason}"] += 1
            own[name][split] = kept
    return gone


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--with", dest="data", type=Path, help="a folder of sets: icons, emoji_text, esc10_audio, ...")
    parser.add_argument("--overwrite", action="store_true", help="replace shards of other data")
    args = parser.parse_args(argv)
    data = args.data or args.out / "drawn"
    if args.data is None:
        drawn_icons(data)
    own = {"icons": icons(data), "emoji": emoji(data)} if (data / "emoji_text").is_dir() else {"icons": icons(data)}
    own.setdefault("emoji", {"train": [], "val": [], "test": []})
    gone = keep_apart(own, measured(data, own))
    if (data / "esc10_audio").is_dir():
        own["sounds"] = sounds(data)
    for name, splits in own.items():
        for split, rows in splits.items():
            if not rows or (name == "emoji" and split == "val" and not rows):
                continue
            kept = [{k: v for k, v in row.items() if k not in ("names",)} for row in rows]
            plan = Plan(Given(name, {split: kept}), split, args.out / name, 4000)
            index = write_split(plan, overwrite=args.overwrite)
            print(f"{name} {split}: {sum(s['nsamples'] for s in index['shardlist'])} samples")
    for reason, count in sorted(gone.items()):
        print(f"left out of {reason}: {count}")
    (args.out / "left_out.json").write_text(json.dumps(dict(sorted(gone.items())), indent=1))
    (args.out / "LICENCES.md").write_text(licences(data))
    return 0


def licences(data: Path) -> str:
    """What the sets say of their licences, one after the other."""
    parts = ["# Licences of the starter's data\n"]
    for name in ("icons", "emoji_text", "esc10_audio"):
        for file in ("README.md", "LICENSE_per_clip.md"):
            path = data / name / file
            if path.is_file():
                parts.append(f"## {name}/{file}\n\n{path.read_text(encoding='utf-8')}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"starter_data: {error}")
