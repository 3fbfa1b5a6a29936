"""A source in one word, as the command line takes it: a folder, a table, shards, hub:NAME or embedded:NAME."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.sources.tabular import ENDINGS
from generalist.data.stream.source import Source

# what `generalist info` lists: the word of a command line -> file and class
SOURCES = {
    "FOLDER": ("folder", "Folder"),
    "TABLE": ("tabular", "Tabular"),
    "SHARDS": ("shards", "Shards"),
    "hub:NAME": ("hub", "Hub"),
    "embedded:NAME": ("embedded", "Embedded"),
    "coco:FOLDER": ("coco", "CocoObjects"),
    "captions:FOLDER": ("captions", "CocoCaptions"),
    "arrays": ("local", "Arrays"),  # in recipes only, as the next
    "windows": ("windows", "Windows"),
}


def source_at(
    place: str, options: dict[str, Any] | None = None, fields: Iterable[str] = (), answer: str = ""
) -> Source:
    """The source behind `place`; options: settings of the source's dataclass.

    fields: those asked for; the files of a plain folder go by the name of the first of them, unless `options` says
    another ("text" is the caption beside a file). answer: the column of a table that is asked for, and so no input,
    unless `options` names it.

    folder of shards or address -> Shards; other folder -> Folder; table file -> Tabular; tars -> Shards;
    hub:NAME -> Hub; embedded:NAME -> Embedded; coco:FOLDER and captions:FOLDER -> COCO's objects and captions.
    """
    from generalist.data.files.remote import is_remote
    from generalist.data.sources.annotations.captions import CocoCaptions
    from generalist.data.sources.coco import CocoObjects
    from generalist.data.sources.embedded import Embedded
    from generalist.data.sources.folder import Folder
    from generalist.data.sources.hub import Hub
    from generalist.data.sources.shards import Shards
    from generalist.data.sources.tabular import Tabular

    kind, _, name = place.partition(":")
    path = Path(place)
    chosen: Any
    settings: dict[str, Any]
    if kind == "hub" and name:
        chosen, settings = Hub, {"name": name}
    elif kind == "embedded" and name:
        chosen, settings = Embedded, {"name": name}
    elif kind == "coco" and name:
        chosen, settings = CocoObjects, {"folder": name}
    elif kind == "captions" and name:
        chosen, settings = CocoCaptions, {"folder": name}
    elif place.endswith(".tar"):
        chosen, settings = Shards, {"splits": {"train": place}}
    elif place.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        raise UserError(f"{place}: a compressed tar has no places to jump to; unpack it to a .tar first")
    elif is_remote(place) or any(path.glob("*/index.json")):
        chosen, settings = Shards, {"path": place}
    elif (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        chosen, settings = Hub, {"name": place}
    elif path.is_dir() and (tars := tars_of(path)):
        chosen, settings = Shards, {"splits": tars}
    elif path.is_dir():
        called = next((name for name in fields if name != "text"), "image")
        chosen, settings = Folder, {"path": place, "name": called}
    elif path.name.lower().endswith(ENDINGS):
        chosen, settings = Tabular, {"path": place, "label": answer}
    else:
        raise UserError(
            f"{place!r} is no data: give a folder, a table ({', '.join(ENDINGS[:5])} ...), a folder or address of "
            "shards, .tar files, hub:NAME, embedded:NAME, coco:FOLDER or captions:FOLDER"
        )
    from generalist.data.sources.settings import make

    return make(chosen, settings | (options or {}))


def tars_of(folder: Path) -> dict[str, list[str]]:
    """{split: its .tar files} of a folder of other people's shards; those that lie in no split's folder are training's.

    Empty where the folder holds anything else, or shards of this project's without their index.
    """
    from generalist.data.media.kinds import is_junk
    from generalist.data.stream.splits import named_split

    found: dict[str, list[str]] = {}
    for path in (p for p in folder.rglob("*") if p.is_file() and not is_junk(p.relative_to(folder))):
        if path.name == "plan.json" or path.suffix not in (".tar", ".idx", ".json"):
            return {}
        if path.suffix == ".tar":
            below = path.relative_to(folder).parts
            split = named_split(below[0]) if len(below) > 1 else None
            found.setdefault(split or "train", []).append(str(path))
    return {split: sorted(paths) for split, paths in found.items()}
