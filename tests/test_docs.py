"""The site: every page stands in a chapter, links lead to pages of the site, the reference says what the code says."""

import re

import pytest

from generalist.scripts import docs
from generalist.tasks.registry.table import TASKS


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    source = tmp_path_factory.mktemp("site") / "source"
    docs.gather(source)
    return {path.name: path.read_text(encoding="utf-8") for path in source.glob("*.md")} | {"": source}


def test_every_page_stands_in_a_chapter():
    folders = ("generalist", "tasks", "tokenizers_mod", "data", "scripts", "tests/examples", ".docs", ".github")
    found = {p.relative_to(docs.ROOT).as_posix() for folder in folders for p in (docs.ROOT / folder).rglob("*.md")}
    assert found == set(docs.pages())


def test_links_lead_to_pages_and_pictures_of_the_site(site):
    source = site.pop("")
    for name, text in site.items():
        for link in re.findall(r"\]\((?!http|#)([^)#]+)[^)]*\)", text):
            assert (source / link).exists(), (name, link)
    assert site["index.md"].count("{toctree}") == len(docs.CHAPTERS) + 1
    site[""] = source


def test_the_reference_is_made_of_the_code(site):
    assert "## generalist fit" in site["reference_commands.md"] and "--forecast" in site["reference_commands.md"]
    keys = site["reference_keys.md"]
    assert "| `steps` | `int` |" in keys and "| `optimizer.lr` | `float` |" in keys and "| `engine.precision` |" in keys
    assert all(f"## {name}\n" in site["reference_tasks.md"] for name in TASKS)
    assert "### GeneralistModel.rank" in site["reference_api.md"]


def test_tutorials_become_notebooks(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra docs")
    docs.notebooks(tmp_path)
    found = {path.stem: nbformat.read(path, as_version=4) for path in tmp_path.glob("*.ipynb")}
    cells = [cell for cell in found["own_data"].cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("import csv") and cells[1].source.startswith("%%bash\ngeneralist fit")
