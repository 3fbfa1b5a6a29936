"""What the files of a folder are, by their names: pictures, sounds, clips, other data, what lies beside them, junk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from generalist.data.base.errors import UserError
from generalist.data.media.codec import PICTURES, SOUNDS

CLIPS = ("mp4", "avi", "mov", "mkv", "webm", "mpg", "mpeg", "m4v")
MEDIA = {
    "pictures": PICTURES,
    "sounds": (*SOUNDS, "aif", "aiff", "au", "caf", "opus", "m4a", "aac", "wma"),
    "clips": CLIPS,
}
# what a field's name says of its files
CALLED = {
    **dict.fromkeys(("image", "picture", "photo", "img"), "pictures"),
    **dict.fromkeys(("audio", "sound", "speech", "music"), "sounds"),
    **dict.fromkeys(("video", "clip", "film"), "clips"),
}
# files that hold many samples each: no sample by themselves
CONTAINERS = ("parquet", "arrow", "feather", "tar", "tfrecord", "h5", "hdf5", "lmdb", "mdb", "rec", "zip", "gz", "7z")
# what lies beside samples: labels, lists, descriptions, programs, what programs leave
BESIDE = (
    *("txt", "caption", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "toml", "md", "rst", "html", "htm", "pdf"),
    *("db", "ini", "lnk", "url", "log", "lock", "tmp", "part", "partial", "crdownload", "bak", "done", "idx", "sha256"),
    *("py", "ipynb", "sh", "pt", "pth", "pkl", "safetensors", "rar", *CONTAINERS),
)
JUNK = {"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "readme", "license", "licence", "copying"}
JUNK_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}


def ending(file: PurePath) -> str:
    """The file's ending in lower case, without the dot; "" for none."""
    return file.suffix.lower().lstrip(".")


def is_junk(file: PurePath) -> bool:
    """Whether the system or a program left it: hidden files, thumbnails, resource forks."""
    return any(part.startswith(".") or part.lower() in JUNK_FOLDERS for part in file.parts) or file.name.lower() in JUNK


def samples_among(files: Sequence[PurePath], called: str) -> tuple[set[str], str]:
    """The endings that are samples among a folder's files, and the word for them.

    Pictures, sounds or clips: those that the field's name `called` says where there are any, else the most. Only where
    there are none, files of other endings are samples, but not those that lie beside samples or hold many. UserError
    where nothing is left, with what there is.
    """
    counted = Counter(ending(f) for f in files if not is_junk(f))
    of = {word: sum(counted[e] for e in endings) for word, endings in MEDIA.items()}
    if any(of.values()):
        said = CALLED.get(called.lower(), "")
        word = said if of.get(said) else max(of, key=lambda w: of[w])
        return set(MEDIA[word]), word
    others = {e for e in counted if e not in BESIDE}
    if others:
        return others, "files"
    if not counted:
        raise UserError("no files in it")
    held = ", ".join(f"{n} .{e}" if e else f"{n} without ending" for e, n in counted.most_common(5))
    many = [e for e in counted if e in CONTAINERS]
    hint = f"; a .{many[0]} file holds many samples, give such a file as the data" if many else ""
    raise UserError(f"no pictures, sounds or clips, only {held}{hint}")


def counted_out(files: Sequence[PurePath]) -> str:
    """'3 files of other kinds left out: 2 .db, 1 .ini'; "" for none."""
    if not files:
        return ""
    kinds = Counter(f".{ending(f)}" if ending(f) and not f.name.startswith(".") else f.name for f in files)
    shown = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(6)) + (" ..." if len(kinds) > 6 else "")
    return f"{len(files)} {'file' if len(files) == 1 else 'files'} of other kinds left out: {shown}"
