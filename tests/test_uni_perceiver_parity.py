"""Uni-Perceiver, number for number: every tensor of the reference files against this framework's own model.

The files of tests/reference, and of every folder of the same code that lies beside the checkout.
"""

import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generalist.convert.uni_perceiver.checkpoint import official_names
from generalist.convert.uni_perceiver.keys import SPATIAL
from generalist.scripts.parity import left_out, main
from generalist.scripts.parity_compare import Row
from generalist.scripts.parity_files import Entry, Tensors, entries
from generalist.scripts.parity_run import Reference, agreeing_heads
from tests.plain_uni_perceiver import Plain, Sizes, write
from tests.plain_uni_perceiver import case as plain_case
from tests.references import UNI_PERCEIVER, folders, label

FOLDERS = folders(UNI_PERCEIVER)
ENTRIES = [(folder, entry) for folder in FOLDERS for entry in entries(folder).values()]
ENTRY_IDS = [f"{label(f)}-{e.outputs}" for f, e in ENTRIES]
CASES = [(folder, entry, case) for folder, entry in ENTRIES for case in entry.cases]


@functools.cache
def compared(folder: Path, entry: Entry, case: str) -> list[Row]:
    """The comparisons of one case; those of beam search without one."""
    reference = Reference(folder, entry)
    return list(reference.run(case) if case else reference.beams())


def dense() -> Reference:
    return Reference(UNI_PERCEIVER, entries(UNI_PERCEIVER)["v1_tiny_dense"])


@pytest.mark.parametrize("folder, entry, case", CASES, ids=[f"{label(f)}-{e.outputs}-{c}" for f, e, c in CASES])
def test_forward_losses_and_gradients_equal_those_of_the_official_code(folder, entry, case):
    rows = compared(folder, entry, case)
    assert rows
    assert not [(row.tensor, row.error) for row in rows if not row.error <= row.tolerance]


@pytest.mark.parametrize("folder, entry", ENTRIES, ids=ENTRY_IDS)
def test_beam_search_writes_the_words_of_the_official_code(folder, entry):
    rows = compared(folder, entry, "")
    written = [name for name in Reference(folder, entry).y if name.startswith("caption.beam") and "eos_id" not in name]
    assert len(rows) == len(written)
    assert not [(row.case, row.tensor, row.error) for row in rows if not row.error <= row.tolerance]


def test_the_kept_files_have_the_cases_that_they_are_said_to_have():
    found = entries(UNI_PERCEIVER)
    assert {name: len(entry.cases) for name, entry in found.items()} == {
        "v1_tiny_dense": 7,
        "v1_tiny_moe": 5,
        "v1_tiny_prompt_separate": 2,
        "v1_tiny_prompt_shared_fc": 1,
    }
    assert [len(compared(UNI_PERCEIVER, entry, "")) for entry in found.values()] == [6, 2, 2, 0]


def test_a_changed_weight_is_seen_by_the_comparison():
    reference = dense()
    with torch.no_grad():
        reference.model.encoder.layers[1].gamma2[3] += 0.01
    assert any(row.error > row.tolerance for row in reference.run("img_cls"))


@pytest.mark.parametrize("folder, entry", ENTRIES, ids=ENTRY_IDS)
def test_no_output_of_a_file_is_left_out_of_the_comparisons(folder, entry):
    rows = [row for case in (*entry.cases, "") for row in compared(folder, entry, case)]
    found = {f"{row.case}.{row.tensor}" for row in rows}
    reference = Reference(folder, entry)
    assert left_out(reference, found) == set(), "tensors that nothing was compared with"
    assert found <= set(reference.y)


@pytest.mark.parametrize("folder, entry", ENTRIES, ids=ENTRY_IDS)
def test_every_weight_of_a_file_is_in_the_model_bit_by_bit(folder, entry):
    reference = Reference(folder, entry)
    back = official_names(reference.model.state_dict(), reference.model.config, reference.unused)
    assert len(reference.weights) > 50
    assert {k for k, v in reference.weights.items() if k not in back or not torch.equal(back[k], v)} == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_every_tensor_of_every_file_has_its_test(folder):
    files = {path.stem: {key.partition(".")[0] for key in load_file(path)} for path in folder.glob("*.safetensors")}
    walked = {stem for entry in entries(folder).values() for stem in (entry.weights, entry.outputs, entry.inputs)}
    # weights and outputs are walked above; inputs are read by the cases
    assert not {stem: heads for stem, heads in files.items() if stem in walked and heads - {"w", "w_extra", "y", "x"}}
    # the file of two processes is walked key by key in test_two_ranks
    assert all(stem.endswith("two_ranks") for stem in set(files) - walked)


def test_every_input_of_the_dense_file_is_read_by_a_case():
    class Seen(dict):
        def __getitem__(self, key):
            seen.add(key)
            return super().__getitem__(key)

    seen: set[str] = set()
    reference = dense()
    reference.x = Seen(reference.x)
    for case in entries(UNI_PERCEIVER)["v1_tiny_dense"].cases:
        reference.inputs(case), reference.candidates(case)
    assert set(reference.x) - seen == {"caption_target"}  # the words themselves, at their SPEs
    asked, words = reference.x["caption_target"], reference.x["caption_ids"][:, :6]
    assert bool(((asked == words) | (asked == -1)).all())


@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_the_weight_decay_table_is_the_official_one(folder):
    from generalist.train.optimizer import parameter_groups

    reference = Reference(folder, next(entry for entry in entries(folder).values() if not entry.extra))
    model, table = reference.model, reference.meta.get("weight_decay_stage1")
    if table is None:
        pytest.skip("the folder has no table")
    decay = {}
    for group in parameter_groups(model, 0.2):
        decay |= {id(p): group["weight_decay"] for p in group["params"]}
    parameters = dict(model.named_parameters())
    state = {
        name: torch.full_like(value, decay[id(parameters[name])] if name in parameters else 0.0)
        for name, value in model.state_dict().items()
    }
    found = official_names(state, model.config)
    for name, (_, wanted) in table.items():
        assert float(found[name].flatten()[0]) == pytest.approx(wanted), name


def test_the_command_prints_every_case_and_says_what_the_folder_lacks(capsys, tmp_path):
    main([str(UNI_PERCEIVER)])
    out = capsys.readouterr().out
    assert "ABOVE" not in out and "not compared" not in out and len(out.splitlines()) == 43
    with pytest.raises(SystemExit, match="holds no reference tensors"):
        main([str(tmp_path)])


OTHERS = [
    Sizes(),
    Sizes(width=40, heads=5, hidden=24, layers=2, sides=(40, 24), words=560, end=556, spe=559, caption=6),
    Sizes(width=16, heads=2, layers=4, patch=4, sides=(8, 8), end=50, spe=44, frames=3, positions=15),
]


@pytest.mark.parametrize("sizes", OTHERS, ids=["wide", "high", "ids elsewhere"])
def test_folders_of_other_sizes_ids_and_grids_compare_like_the_official_one(tmp_path, sizes, capsys):
    write(tmp_path, sizes)
    main([str(tmp_path), "--all"])
    out = capsys.readouterr().out
    assert "ABOVE" not in out and "not compared" not in out
    assert agreeing_heads(tmp_path, entries(tmp_path)["other"]) == sizes.heads
    reference = Reference(tmp_path, entries(tmp_path)["other"])
    assert (reference.end, reference.spe) == (sizes.end, sizes.spe)
    assert len(list(reference.run("caption"))) == 11 + sizes.layers  # states, logits, losses, gradients


def test_the_second_implementation_gives_the_official_numbers():
    """What makes the other folders is itself held to the official code: one says the same as the other."""
    found = Tensors.read(UNI_PERCEIVER, entries(UNI_PERCEIVER)["v1_tiny_dense"])
    end, spe = found.specials
    model = Plain(Sizes(64, 4, 256, 2, 600, end, spe, 16, (48, 48), 4, 32, 6))
    assert set(model.w) <= set(found.w)
    with torch.no_grad():
        for name, value in model.w.items():
            value.copy_(found.w[name])
        torch.testing.assert_close(model.table, found.w[SPATIAL], atol=1e-5, rtol=0)
        for name in entries(UNI_PERCEIVER)["v1_tiny_dense"].cases:
            for key, value in plain_case(model, found.x, name).items():
                wanted = found.y.get(f"{name}.{key}")
                if wanted is None or key == "loss.total" or key.endswith("_out"):  # with accuracies; at padding
                    continue
                if key == "input_sequence" and name == "caption":  # padded places differ
                    continue
                assert float((value - wanted).abs().max()) <= 1e-5 * max(float(wanted.abs().max()), 1.0), (name, key)
