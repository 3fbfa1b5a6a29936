"""The published systems out of the project's parts equal the authors' code, every tensor of every reference file."""

import json
from pathlib import Path

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.scripts import parity_systems
from generalist.scripts.systems.crossformer import group_sizes
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
    assert not reference.config.unknown, "a setting of the file was not read"


@pytest.mark.parametrize(
    "paths", files([*KEPT, HERE / "backbones"]).values(), ids=lambda paths: f"{paths[0].parent.name}-{paths[0].stem}"
)
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
    save_file(tensors, tmp_path / "spoilt.safetensors", {"config": json.dumps(config)})
    save_file({"a": tensors[first]}, tmp_path / "foreign.safetensors")
    assert parity_systems.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "over the tolerance" in said and "no system here knows" in said and "foreign" in said
    with pytest.raises(UserError, match="holds no reference tensors"):
        references(tmp_path / "none")


def test_a_file_that_cannot_be_built_is_one_line_and_the_next_one_is_compared(tmp_path, capsys):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    for number, (changed, name) in enumerate([({"pad_type": 1}, "a"), ({}, "b"), ({"num_heads": [3, 5]}, "c")]):
        source = KEPT[0].parent / "crossformer" / "adaptive_linear.safetensors"
        with safe_open(source, "pt") as file:
            config = json.loads(file.metadata()["config"]) | changed | {"unheard_of": number}
        save_file(load_file(source), tmp_path / f"{name}.safetensors", {"config": json.dumps(config)})
    assert parity_systems.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "refused: a: pad_type=1 is not built; the published models have 0" in said
    assert "refused: c: crossformer: 3 heads do not divide a width of 16" in said
    assert said.count("settings that nobody reads: unheard_of") == 1 and "3 tensors, 2 over" in said


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("constant", [[4, 4, 4], [3, 3], [5, 5]]),
        ("linear", [[4, 6, 8], [5, 6], [4, 4]]),
        ("linear_div", [[4, 6, 8], [8, 8], [4, 4]]),
        ("alter", [[4, 6, 8], [8, 8], [4, 4]]),
    ],
)
def test_groups_grow_with_depth_as_the_authors_print_them(kind, sizes):
    config = {"depths": [3, 2, 2], "group_size": [4, 3, 5], "patch_size": [4, 8], "group_type": kind}
    reference = Reference("crossformer", config, {}, {"input": torch.zeros(1, 1, 64, 64)})
    assert group_sizes(reference) == sizes
