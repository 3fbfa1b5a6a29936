"""mypy over the whole package under its one import name: python -m scripts.types [mypy's words].

The folders beside generalist/ are its subpackages, which `generalist/__init__.py` says at run time and mypy cannot see:
here they are laid out as links in mypy's cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ("data", "tokenizers_mod", "tasks", "scripts")


def main(words: list[str]) -> int:
    """mypy's exit code."""
    cache = ROOT / ".mypy_cache"
    house = cache / "house" / "generalist"
    shutil.rmtree(house, ignore_errors=True)
    house.mkdir(parents=True)
    for entry in [*(ROOT / "generalist").iterdir(), *(ROOT / name for name in BESIDE)]:
        if entry.name != "__pycache__":
            (house / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    return subprocess.run([*command, "-p", "generalist", *words], cwd=house.parent).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
