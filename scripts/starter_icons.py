"""Icons drawn anew from npm's `@iconify/json`: parquet files as `scripts.starter_data --with` expects them.

Sets under the licences of `FREE` only, no logos and no flags; at most `MOST` icons a set and two of one name in a set
(words of style such as "outline" are cut from names). 32 x 32 pixels on white, grey where the icon has one colour,
drawn by resvg. Needs npm (Node.js) and its registry; about 500 MB are fetched into OUT/npm.
"""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from scripts.starter_card import UNSEEN

PACKAGES = ("@iconify/json@2.2.535", "@resvg/resvg-js@2.6.2")
FREE = {
    "MIT",
    "Apache-2.0",
    "ISC",
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-3.0",
    "OFL-1.1",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Unlicense",
}
NOT = re.compile(r"flag|logo|brand|crypto", re.IGNORECASE)
STYLE = {"outline", "outlined", "fill", "filled", "solid", "line", "linear", "bold", "thin", "light", "regular"}
STYLE |= {"duotone", "twotone", "two", "tone", "sharp", "round", "rounded", "broken", "alt"}
STYLE |= {"12", "16", "20", "24", "28", "32", "48"}
MOST, SIDE, HELD = 2600, 32, 2000
DRAW = """
const { Resvg } = require("@resvg/resvg-js");
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  let png = "";
  try {
    png = new Resvg(JSON.parse(line), { background: "white", fitTo: { mode: "width", value: SIDE } }).render().asPng();
  } catch (error) {}
  process.stdout.write(Buffer.from(png).toString("base64") + "\\n");
});
"""


def words(icon: str) -> str:
    """The words of an icon's name without those of its style."""
    parts = [part for part in icon.lower().split("-") if part]
    return " ".join(part for part in parts if part not in STYLE) or " ".join(parts)


def chosen(folder: Path) -> Iterator[tuple[dict[str, Any], str, str, str]]:
    """(what the set says of itself, icon, name, SVG) of the icons that are taken."""
    for path in sorted((folder / "json").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        info = found["info"] | {"prefix": found["prefix"]}
        if info["license"].get("spdx") not in FREE or NOT.search(f"{info['name']} {info.get('category', '')}"):
            continue
        names: Counter[str] = Counter()
        icons = sorted(name for name, icon in found["icons"].items() if not icon.get("hidden"))
        random.Random(found["prefix"]).shuffle(icons)
        for icon in icons:
            name = words(icon)
            if names[name] < 2 and names.total() < MOST and len(name) > 2:
                names[name] += 1
                yield info, icon, name, svg(found, found["icons"][icon])


def svg(of: dict[str, Any], icon: dict[str, Any]) -> str:
    """An icon in a square, its own colour black."""
    left, top = icon.get("left", of.get("left", 0)), icon.get("top", of.get("top", 0))
    width, height = icon.get("width", of.get("width", 16)), icon.get("height", of.get("height", 16))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    body = icon["body"].replace("currentColor", "#000000")
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{side}" height="{side}">{body}</svg>'


def stored(png: bytes, colour: bool) -> bytes:
    """PNG as small as it gets: grey, or a palette."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    (picture.quantize(48) if colour else picture.convert("L")).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def fetched(folder: Path) -> Path:
    """node_modules with the icons and the drawing. UserError without npm, or where it cannot fetch."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise UserError(
            "icons are drawn from npm's @iconify/json: install Node.js with npm, or give --with a folder of sets"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"npm cannot fetch {' and '.join(PACKAGES)} ({(done.stderr.strip().splitlines() or ['?'])[-1]})"
        )
    return folder / "node_modules"


def drawn(modules: Path, svgs: list[str]) -> Iterator[bytes]:
    """The icons as PNG, in order; empty for one that cannot be drawn."""
    script = modules.parent / "draw.js"
    script.write_text(DRAW.replace("SIDE", str(SIDE)), encoding="utf-8")
    lines = "".join(json.dumps(text) + "\n" for text in svgs)
    done = subprocess.run(["node", str(script)], input=lines, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"node cannot draw the icons ({(done.stderr.strip().splitlines() or ['?'])[-1]})")
    yield from (base64.b64decode(line) for line in done.stdout.splitlines())


def drawn_icons(out: Path) -> None:
    """OUT/icons/{train,val,test}.parquet and README.md, from npm."""
    import pandas

    modules = fetched(out / "npm")
    rows: list[dict[str, Any]] = []
    sets: dict[str, dict[str, Any]] = {}
    taken = list(chosen(modules / "@iconify" / "json"))
    for (info, icon, name, _), png in zip(taken, drawn(modules, [found[3] for found in taken]), strict=True):
        if png:
            colour = bool(info.get("palette"))
            sets[info["prefix"]] = info
            row = {"picture": stored(png, colour), "name": name, "icon": icon, "set": info["prefix"], "colour": colour}
            rows.append(row)
    random.Random(0).shuffle(rows)
    held = [row for row in rows if row["set"] in UNSEEN]
    test = list({(row["set"], row["name"]): row for row in held}.values())  # one picture a name and set
    rest = [row for row in rows if row["set"] not in UNSEEN]
    (out / "icons").mkdir(parents=True, exist_ok=True)
    for split, part in (("train", rest[HELD:]), ("val", rest[:HELD]), ("test", test)):
        pandas.DataFrame(part).to_parquet(out / "icons" / f"{split}.parquet")
    counts = Counter(row["set"] for row in rows)
    lines = [
        f"| {name} | {info['name']} | {counts[name]} | {info['license']['spdx']} | {info['author']['name']} |"
        for name, info in sorted(sets.items())
    ]
    head = [
        "# Icons and their names\n",
        f"Drawn from {PACKAGES[0]}.\n",
        "| set | name | pictures | licence | author |",
        "|---|---|---|---|---|",
    ]
    (out / "icons" / "README.md").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
