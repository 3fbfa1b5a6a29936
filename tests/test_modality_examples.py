"""What `generalist info --modalities` says, and the example in the docstring of every modality runs."""

import doctest
import json
import sys

import numpy as np
import pytest
import torch

from generalist.cli import main
from generalist.commands.check.modality import formula
from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class
from generalist.tokenizers_mod.vision.flexi import FlexiImage

CLASSES = {**{name: modality_class(name) for name in MODALITIES}, "flexi": FlexiImage}


@pytest.mark.parametrize("name", list(CLASSES))
def test_the_example_of_a_modality_runs(name):
    kind = CLASSES[name]
    module = sys.modules[kind.__module__]
    (found,) = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__, module, vars(module) | {"np": np})
    assert found.examples, f"{name} shows no example"
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(found, out=printed.append)
    assert result.failed == 0 and result.attempted == len(found.examples), "".join(printed)


def test_info_lists_every_modality_with_raw_formats_and_formula(capsys):
    assert main(["info", "--modalities", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["modalities"]
    assert found == {name: {"raw": k.raw, "tokens": k.count} for name, k in CLASSES.items() if name != "flexi"}
    assert main(["info", "--modalities"]) == 0
    plain = " ".join(capsys.readouterr().out.split())
    for name, kind in CLASSES.items():
        if name in MODALITIES:
            assert " ".join(f"{name} raw: {kind.raw}".split()) in plain
            assert " ".join(f"tokens: {kind.count}".split()) in plain


def test_the_padded_count_is_the_same_where_a_modality_pads():
    image = CLASSES["image"](size=32, patch=8, channels=3)
    tensors = image.tensors([torch.rand(3, 20, 40)])
    assert image.padded(tensors)[0]["patch"].shape[0] == formula(image, {"H": 20, "W": 40})
