"""Uni-Perceiver, number for number: every tensor of the reference files against this framework's own model."""

import functools
from pathlib import Path

import pytest

from scripts.parity import FILES, Reference, Row

# tensors of the outputs that are inputs: the id that ends a caption in the second and third beam search
READ = {"caption.beam2_eos.eos_id"}
# the file of two processes is walked key by key in test_two_ranks
TWO_RANKS = "v1_tiny_two_ranks.safetensors"


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "reference" / "uni_perceiver"


@functools.cache
def compared(folder: Path, extra: str, weights: str, case: str) -> list[Row]:
    """The comparisons of one case; those of beam search without one."""
    reference = Reference(folder, extra, weights)
    return list(reference.run(case) if case else reference.beams())


CASES = [(name, case) for name, (_, _, cases) in FILES.items() for case in cases]


@pytest.mark.parametrize("name, case", CASES, ids=[f"{n}-{c}".replace(" ", "_") for n, c in CASES])
def test_forward_losses_and_gradients_equal_those_of_the_official_code(folder, name, case):
    weights, extra, _ = FILES[name]
    rows = compared(folder, extra, weights, case)
    assert rows
    assert not [(row.tensor, row.error) for row in rows if not row.error <= row.tolerance]


@pytest.mark.parametrize("name", ["dense", "mixture of experts", "prompts separate"])
def test_beam_search_writes_the_words_of_the_official_code(folder, name):
    weights, extra, _ = FILES[name]
    rows = compared(folder, extra, weights, "")
    assert len(rows) == (6 if name == "dense" else 2)
    assert not [(row.case, row.tensor, row.error) for row in rows if not row.error <= row.tolerance]


def test_a_changed_weight_is_seen_by_the_comparison(folder):
    import torch

    reference = Reference(folder)
    with torch.no_grad():
        reference.model.encoder.layers[1].gamma2[3] += 0.01
    assert any(row.error > row.tolerance for row in reference.run("img_cls"))


@pytest.mark.parametrize("name", FILES)
def test_no_output_of_a_file_is_left_out_of_the_comparisons(folder, name):
    weights, extra, cases = FILES[name]
    named = set(Reference(folder, extra, weights).y)
    rows = [row for case in (*cases, "") for row in compared(folder, extra, weights, case)]
    found = {f"{row.case}.{row.tensor}" for row in rows}
    assert named - found - READ == set(), "tensors that nothing was compared with"
    assert found <= named


@pytest.mark.parametrize("name", FILES)
def test_every_weight_of_a_file_is_in_the_model_bit_by_bit(folder, name):
    import torch
    from safetensors.torch import load_file

    from generalist.convert.uni_perceiver import official_names

    weights, extra, _ = FILES[name]
    reference = Reference(folder, extra, weights)
    back = official_names(reference.model.state_dict(), reference.model.config, reference.unused)
    tensors = load_file(folder / f"{weights}.safetensors") | (
        load_file(folder / f"{extra}.safetensors") if extra else {}
    )
    theirs = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(("w.", "w_extra."))}
    assert len(theirs) > 50
    assert {k for k, v in theirs.items() if k not in back or not torch.equal(back[k], v)} == set()


def test_every_tensor_of_every_file_has_its_test(folder):
    from safetensors.torch import load_file

    known = {f"{stem}.safetensors" for weights, extra, _ in FILES.values() for stem in (weights, extra) if stem}
    files = {path.name for path in folder.glob("*.safetensors")}
    assert files == known | {TWO_RANKS}
    for name in sorted(known):
        heads = {key.partition(".")[0] for key in load_file(folder / name)}
        # weights and outputs are walked above; inputs are read by the cases
        assert heads <= {"w", "w_extra", "y", "x"}, name


def test_every_input_of_the_dense_file_is_read_by_a_case(folder):
    class Seen(dict):
        def __getitem__(self, key):
            seen.add(key)
            return super().__getitem__(key)

    seen: set[str] = set()
    reference = Reference(folder)
    reference.x = Seen(reference.x)
    for case in FILES["dense"][2]:
        reference.inputs(case), reference.candidates(case)
    assert set(reference.x) - seen == {"caption_target"}  # the words themselves, at their SPEs
    asked, words = reference.x["caption_target"], reference.x["caption_ids"][:, :6]
    assert bool(((asked == words) | (asked == -1)).all())


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
