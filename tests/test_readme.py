"""The README and the rooms' pages tell the truth: the tree is today's, the example is the tested file, all that they
name exists, every link leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from generalist.cli import COMMANDS
from generalist.scripts.tree import END, START, tree

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLACES = ("", "generalist", "tasks", "tokenizers_mod", "data", "scripts", "tests/examples")
# every page but those of the reference tensors, which tell where the numbers are from
PAGES = sorted(
    path for place in PLACES for path in (ROOT / place).glob("*.md" if place in ("", "tests/examples") else "**/*.md")
)
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
ALL = "\n".join(TEXTS.values())


def test_the_tree_is_the_house_as_it_stands():
    shown = TEXTS["generalist/README.md"].partition(START)[2].partition(END)[0]
    assert shown == tree(), "run: python -m scripts.tree --write"


def test_the_python_example_is_the_file_that_is_tested():
    example = (ROOT / "tests/examples/quickstart.py").read_text(encoding="utf-8").split("\n\n", 1)[1].strip()
    assert f"```python\n{example}\n```" in README


def test_the_first_page_is_short_and_leads_to_every_other():
    assert len(README.splitlines()) <= 200
    for name in TEXTS:
        assert name == "README.md" or f"({name})" in README, name


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_link_leads_somewhere(name):
    for link in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", TEXTS[name]):
        assert ((ROOT / name).parent / link).exists(), link


def test_every_command_stands_in_the_readme_and_none_that_does_not_exist():
    told = set(re.findall(r"^ {4}generalist ([a-z-]+)", README, flags=re.M))
    assert set(COMMANDS) == told


# what the newcomer's section tells the reader to write
TO_BE_WRITTEN = {"tokenizers_mod/numbers/melody.py", "tasks/kinds/tag.py"}


def test_every_file_named_in_the_readme_exists():
    for name in re.findall(r"`((?:scripts|tests|generalist|tasks|tokenizers_mod|data)/[\w/.-]+)`", ALL):
        assert (ROOT / name.rstrip("/")).exists() or name in TO_BE_WRITTEN, name


def test_every_module_named_in_the_readme_runs_with_help():
    for module in sorted(set(re.findall(r"python -m (scripts\.\w+)", ALL))):
        path = ROOT / (module.replace(".", "/") + ".py")
        assert path.exists(), module
    done = subprocess.run([sys.executable, "-m", "scripts.tree"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "tokenizers_mod/" in done.stdout


ROOMS = ("tokenizers_mod", "tasks", "data", "generalist/nn")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_where_its_next_inhabitant_goes(room):
    """Short, linked from the main page, and every file and folder that it names is there."""
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40 and f"({room}/README.md)" in README and "in 30 lines" in text
    for name in re.findall(r"`([\w/]+(?:/|\.py))`", text):
        there = [(base / name).exists() for base in (ROOT, ROOT / room)]
        assert any(there) or name in {"numbers/melody.py", "kinds/tag.py"}, name
