"""The published systems out of the project's parts equal the authors' code, every tensor of every reference file."""

from pathlib import Path

import pytest

from generalist.data.base.errors import UserError
from generalist.scripts import parity_systems
from generalist.scripts.systems.reference import Reference, references, stem
from generalist.scripts.systems.table import system_of
from tests.references import BESIDE, HERE

KEPT = sorted(path for path in (HERE / "systems").iterdir() if path.is_dir())


def files(folders):
    """The files of each system of the folders."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.safetensors")):
        found.setdefault((path.parent, stem(path)), []).append(path)
    return found


def check(reference):
    rows = parity_systems.compare(reference)
    assert rows, f"no system knows {reference.name}"
    assert not [row for row in rows if row.excess > 0]
    assert not parity_systems.left(reference, rows), "a tensor of the file was not compared"


@pytest.mark.parametrize("paths", files(KEPT).values(), ids=lambda paths: f"{paths[0].parent.name}-{paths[0].stem}")
def test_kept_reference_tensors(paths):
    check(Reference.read(paths))


beside = files(sorted({path.parent for path in BESIDE.rglob("*.safetensors")}) if BESIDE.is_dir() else [])


@pytest.mark.skipif(not beside, reason="the larger reference files lie beside the checkout, in ../shared/reference")
@pytest.mark.parametrize("place", beside or [(Path("none"), "none")], ids=lambda place: f"{place[0].name}-{place[1]}")
def test_reference_tensors_beside_the_checkout(place):
    reference = Reference.read(beside[place])
    if system_of(reference) is None:
        pytest.skip("of a system that is compared elsewhere or not built")
    check(reference)


def test_a_wrong_weight_is_seen_and_the_command_says_so(tmp_path, capsys, monkeypatch):
    from safetensors.torch import load_file, save_file

    source = KEPT[0] / sorted(path.name for path in KEPT[0].glob("*.safetensors"))[0]
    tensors = load_file(source)
    config = Reference.read([source]).config
    first = next(name for name in tensors if name.startswith("sd.") and name.endswith("weight"))
    tensors[first] = tensors[first] + 0.01
    import json

    save_file(tensors, tmp_path / "spoilt.safetensors", {"config": json.dumps(config)})
    save_file({"a": tensors[first]}, tmp_path / "foreign.safetensors")
    assert parity_systems.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "over the tolerance" in said and "no system here knows" in said and "foreign" in said
    with pytest.raises(UserError, match="holds no reference tensors"):
        references(tmp_path / "none")
