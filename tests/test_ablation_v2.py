"""The ablation command: what it says of an ordering, and that every variant trains and is evaluated."""

import math

import pytest

from scripts import ablation_v2
from tests.test_detect import pictures


def table(*values: float, spread: float) -> dict:
    return {v: {"glyphs": (x, spread)} for v, x in zip(ablation_v2.ORDER, values, strict=True)}


@pytest.mark.parametrize(
    ("values", "spread", "words"),
    [
        ((0.1, 0.2, 0.3, 0.4), 0.05, "the paper's order shows"),
        ((0.1, 0.2, 0.3, 0.4), 0.2, "not established"),
        ((0.1, 0.2, 0.3, 0.4), math.nan, "not established"),  # one seed
        ((0.1, 0.4, 0.3, 0.5), 0.01, "does not show"),
    ],
)
def test_an_ordering_is_claimed_only_beyond_the_spread(values, spread, words):
    (said,) = ablation_v2.verdict(table(*values, spread=spread))
    assert said.startswith("glyphs (recall@1)") and words in said


def test_means_and_spreads_are_over_seeds():
    found = ablation_v2.summary({"mixed": [{"cells": 0.2, "seconds": 1.0}, {"cells": 0.4, "seconds": 1.0}]})
    assert found == {"mixed": {"cells": (pytest.approx(0.3), pytest.approx(0.02**0.5))}}
    assert "| mixed | 0.300 ± 0.141 | - | - |" in ablation_v2.markdown(found)


@pytest.mark.soak
def test_every_variant_trains_and_is_evaluated(tmp_path):
    folder = pictures(tmp_path)
    words = ["--detection", str(folder), "--steps", "2", "--seeds", "2", "--out", str(tmp_path / "out")]
    assert ablation_v2.main(words) == 0
    written = (tmp_path / "out" / "table.md").read_text()
    assert all(f"| {variant} |" in written for variant in ablation_v2.VARIANTS)
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 1000
