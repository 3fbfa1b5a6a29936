from pathlib import Path
def drawn_icons(out: Path) -> None:
    raise NotImplementedError
