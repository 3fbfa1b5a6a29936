"""The ablation command: what it says of an ordering and of differences, and that every variant trains."""

import io
import json
import math

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from generalist.data.base.errors import UserError
from generalist.scripts import ablation_table, ablation_v2
from tests.test_detect import pictures


def table(*values: float, spread: float) -> dict:
    """Means in the order of the paper's own retrieval numbers, worst first."""
    order = ("unmixed", "mixed", "gathered", "balanced")
    return {v: {"shapes": (x, spread)} for v, x in zip(order, values, strict=True)}


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
    (said,) = ablation_table.verdict(table(*values, spread=spread))
    assert said.startswith("shapes (recall@1)") and words in said


def test_means_and_spreads_are_over_seeds_and_over_all_tasks_where_there_are_all():
    whole = [{"cells": 0.2, "digits": 0.6, "shapes": 0.1}, {"cells": 0.4, "digits": 0.6, "shapes": 0.8}]
    found = ablation_table.summary({"mixed": whole, "global": [{"digits": 0.5, "shapes": 0.1}] * 2})
    assert found["mixed"]["cells"] == (pytest.approx(0.3), pytest.approx(0.02**0.5))
    assert found["mixed"]["all"] == (pytest.approx(0.45), pytest.approx(0.045**0.5))
    assert set(found["global"]) == {"digits", "shapes"}
    assert "| mixed | 0.300 ± 0.141 | 0.600 ± 0.000 | 0.450 ± 0.495 | 0.450 ± 0.212 |" in ablation_table.markdown(found)


def test_differences_are_taken_within_a_seed_and_marked_where_they_exceed_twice_their_spread():
    """The seeds differ by much more than the variants, which differ by the same in each."""
    runs = {
        "unmixed": [{"digits": 0.2}, {"digits": 0.8}, {"digits": 0.4}],
        "gathered": [{"digits": 0.31}, {"digits": 0.9}, {"digits": 0.505}],
    }
    found = ablation_table.claims(runs)
    assert list(found) == ["gathered - unmixed"]
    gap = found["gathered - unmixed"]["digits"]
    assert (gap.mean, gap.spread) == (pytest.approx(0.105), pytest.approx(0.005))
    assert gap.paper == pytest.approx(0.2) and gap.beyond
    two = {variant: found[:2] for variant, found in runs.items()}
    assert not ablation_table.claims(two)["gathered - unmixed"]["digits"].beyond  # too few to know the spread
    assert not ablation_table.Gap(0.1, 0.06, 1.0).beyond and not ablation_table.Gap(0.1, math.nan, 1.0).beyond
    assert "| gathered - unmixed | - | **+0.105 ± 0.005** (+0.2) | - | - |" in ablation_table.markdown({}, found)


def test_agreement_with_the_paper_counts_signs_and_those_beyond_the_spread():
    gaps = {
        "a - b": {"cells": ablation_table.Gap(0.1, 0.01, 2.0), "digits": ablation_table.Gap(-0.1, 0.01, 2.0)},
        "c - d": {"cells": ablation_table.Gap(0.1, 0.2, 2.0), "all": ablation_table.Gap(0.1, 0.0, 2.0)},
    }
    said = ablation_table.agreement(gaps)
    assert said.startswith("2 of 3 differences") and said.endswith("of the 2 that are more than twice their spread, 1")


def asked(folder, count: int = 6):
    """Pictures of one shape with the answers to questions about them; the last ones do not tell the colour."""
    rows = []
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((20, 20, 3), 6 * i, dtype=np.uint8)).save(file, "PNG")
        answers = ["yes", "circle", ("red", "teal", "blue")[i % 3], "no"]
        rows.append({"image_png": file.getvalue(), "answers": answers if i < count - 1 else ["triangle", "yes"]})
    folder.mkdir()
    for split in ("train", "test"):
        pandas.DataFrame(rows).to_parquet(folder / f"{split}.parquet")
    return folder


def test_shapes_are_described_by_the_answers_that_tell_colour_and_form(tmp_path):
    found = ablation_v2.Shapes(str(asked(tmp_path / "easy_vqa"))).open("test")
    assert [found[i]["text"] for i in range(len(found))] == [
        f"{c} circle" for c in ("red", "teal", "blue", "red", "teal")
    ]
    assert found[2]["id"] != found[1]["id"] and found[2]["image"].size == (20, 20)


def small(folder):
    (folder / "bccd_detection").mkdir()
    pictures(folder / "bccd_detection")
    asked(folder / "easy_vqa", 40)
    return folder


def test_a_variant_begins_with_the_region_tokenizer_that_learnt_to_detect(tmp_path):
    data = small(tmp_path)
    regions = ablation_v2.first(data, 0, 1, (64, 64), tmp_path / "regions.safetensors")
    for variant in ("balanced", "global"):
        made = ablation_v2.recipe(variant, data, 0, 1)
        _, objective = ablation_v2.build(made, regions)
        own = objective.model.tokenizers["region"].state_dict()
        taken = [k for k in own if k in regions]
        assert len(taken) > 100 and all(torch.equal(own[k], regions[k]) for k in taken)
    again = ablation_v2.first(data, 0, 1, (64, 64), tmp_path / "regions.safetensors")  # read, not learnt again
    assert all(torch.equal(again[k], regions[k]) for k in regions)


def test_a_call_goes_on_where_another_ended_and_refuses_other_settings(tmp_path):
    """All runs are there already: nothing is trained, the table is written again, and kept with date and machine."""
    data, out = small(tmp_path), tmp_path / "out"
    out.mkdir()
    run = {"cells": 0.3, "digits": 0.9, "shapes": 0.4, "seconds": 1.0}
    runs = {v: [run, run] for v in ablation_v2.VARIANTS}
    saved = {"steps": 300, "first": 200, "size": [64, 64], "runs": runs}
    (out / "results.json").write_text(json.dumps(saved))
    words = [str(data), "--seeds", "2", "--out", str(out)]
    assert ablation_v2.main([*words, "--keep", str(tmp_path / "kept")]) == 0
    assert "| balanced | 0.300 ± 0.000 | 0.900 ± 0.000 |" in (out / "table.md").read_text()
    (file,) = (tmp_path / "kept").glob("*-ablation-v2.json")
    kept = json.loads(file.read_text())
    assert kept["runs"] == runs and kept["date"] and kept["machine"]["cores"] >= 1
    assert (tmp_path / "kept" / "ablation_v2.png").stat().st_size < 100_000
    with pytest.raises(UserError, match="give another --out"):
        ablation_v2.main([*words, "--steps", "7"])


@pytest.mark.soak
def test_every_variant_trains_and_is_evaluated(tmp_path):
    words = [str(small(tmp_path)), "--steps", "3", "--first", "2", "--seeds", "2", "--out", str(tmp_path / "out")]
    assert ablation_v2.main(words) == 0
    written = (tmp_path / "out" / "table.md").read_text()
    assert all(f"| {variant} |" in written for variant in ablation_v2.VARIANTS)
    assert "| balanced - global | - |" in written
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 1000
