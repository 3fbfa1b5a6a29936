"""Files that other files name: relative to the file that names them, however the name is written."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

from generalist.data.base.files import is_regular


def beside(folder: Path, name: str) -> Path:
    """The file called `name` in `folder`, or where the name stands for itself; `folder / name` where there is none.

    Tried as it is written, with accents joined or apart (macOS writes them apart), and with Windows' separators.
    """
    written = [name, name.replace("\\", "/")] if "\\" in name else [name]
    for base in (folder, Path()):
        for one in written:
            for spelt in (one, normalize("NFC", one), normalize("NFD", one)):
                if is_regular(base / spelt):
                    return base / spelt
    return folder / written[-1]
