"""Uni-Perceiver, number for number: every tensor of the reference files against this framework's own model."""

from pathlib import Path

import pytest

from scripts.parity import FILES, Reference

# Not numbers of ours to compare: the official filler loss (always 0), inputs of the case, and the routers' own
# decisions, which have their tests beside the mixture of experts.
OTHER = ("loss.null_loss", "eos_id", ".gate.", "attr.")


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "reference" / "uni_perceiver"


CASES = [(name, case) for name, (_, _, cases) in FILES.items() for case in cases]


@pytest.mark.parametrize("name, case", CASES, ids=[f"{n}-{c}".replace(" ", "_") for n, c in CASES])
def test_forward_losses_and_gradients_equal_those_of_the_official_code(folder, name, case):
    weights, extra, _ = FILES[name]
    reference = Reference(folder, extra, weights)
    rows = list(reference.run(case))
    wrong = [(row.tensor, row.error) for row in rows if not row.error <= row.tolerance]
    assert not wrong
    named = {k[len(case) + 1 :] for k in reference.y if k.startswith(f"{case}.")}
    left = {k for k in named - {row.tensor for row in rows} if not any(o in f"{k}" for o in OTHER) and "beam" not in k}
    assert not left, f"not compared: {sorted(left)}"


@pytest.mark.parametrize("name", ["dense", "mixture of experts", "prompts separate"])
def test_beam_search_writes_the_words_of_the_official_code(folder, name):
    weights, extra, _ = FILES[name]
    rows = list(Reference(folder, extra, weights).beams())
    assert len(rows) == (6 if name == "dense" else 2)
    assert not [(row.case, row.tensor, row.error) for row in rows if not row.error <= row.tolerance]


def test_a_changed_weight_is_seen_by_the_comparison(folder):
    import torch

    reference = Reference(folder)
    with torch.no_grad():
        reference.model.encoder.layers[1].gamma2[3] += 0.01
    assert any(row.error > row.tolerance for row in reference.run("img_cls"))


def test_every_case_of_the_files_is_run(folder):
    for name, (weights, extra, cases) in FILES.items():
        y = Reference(folder, extra, weights).y
        found = {k.partition(".")[0] for k in y} - {"attr"}
        assert found == set(cases), name


def test_the_weight_decay_table_is_the_official_one(folder):
    import torch

    from generalist.convert.uni_perceiver import official_names
    from generalist.optimizer import parameter_groups

    reference = Reference(folder)
    model = reference.model
    decay = {}
    for group in parameter_groups(model, 0.2):
        decay |= {id(p): group["weight_decay"] for p in group["params"]}
    parameters = dict(model.named_parameters())
    state = {
        name: torch.full_like(value, decay[id(parameters[name])] if name in parameters else 0.0)
        for name, value in model.state_dict().items()
    }
    found = official_names(state, model.config)
    for name, (_, wanted) in reference.meta["weight_decay_stage1"].items():
        assert float(found[name].flatten()[0]) == pytest.approx(wanted), name
