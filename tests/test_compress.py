"""`generalist compress`: what is zero, what is lost, what is saved; the folder read back is what was measured."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small import modalities
from torch import nn
from transformers import AutoModel, AutoProcessor

from generalist.cli import main
from generalist.compress import costs
from generalist.compress.methods import parsed
from generalist.compress.table import table
from generalist.compress.work import Work
from generalist.convert.files import load_folder
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.saved import read_model
from generalist.model.folder.stored import as_int8, whole
from generalist.tokenizers_mod.base.modalities import modality_settings

costs.ROUNDS = 1


def model() -> GeneralistModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return GeneralistModel(GeneralistConfig(modalities=modality_settings(modalities()), **sizes)).eval()


@pytest.fixture(scope="module")
def run(small_run) -> Path:
    return small_run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def compressed(run: Path, out: Path, *methods: str) -> dict:
    assert main(["compress", str(run), "--method", *methods, "--out", str(out)]) == 0
    return json.loads((out / "compress.json").read_text())


def pictures(seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (6, 8, 8), np.uint8))


def test_pruning_makes_the_smallest_share_zero_and_leaves_all_others_as_they_were():
    before, after = model(), Work(model())
    told = parsed(["prune:0.3,scope=global"])[0].run(after)
    linears = [n for n, m in before.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    old = torch.cat([before.get_submodule(n).weight.detach().flatten() for n in linears])
    new = torch.cat([after.model.get_submodule(n).weight.detach().flatten() for n in linears])
    gone = old.abs().argsort()[: round(0.3 * len(old))]
    expected = old.index_fill(0, gone, 0)
    assert torch.equal(new, expected) and told["weights"] == len(old)
    assert told["zeros"] == int((new == 0).sum()) == pytest.approx(0.3 * len(old), abs=1)
    assert set(after.model.state_dict()) == set(before.state_dict())  # for good: no masks are left
    rest = [n for n in before.state_dict() if n.removesuffix(".weight") not in linears]
    assert all(torch.equal(before.state_dict()[n], after.model.state_dict()[n]) for n in rest)


def test_every_matrix_of_the_layers_loses_its_own_smallest_share_and_tokenizers_and_heads_nothing():
    before, after = model(), Work(model())
    with torch.no_grad():
        for one in (before, after.model):
            one.encoder.layers[0].mlp.up.weight.mul_(1e-3)  # by one threshold all of it would go
    parsed(["prune:0.3"])[0].run(after)
    for name, module in before.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        old, new = module.weight.detach(), after.model.get_submodule(name).weight.detach()
        gone = old.abs().flatten().argsort()[: round(0.3 * old.numel())]
        expected = old.flatten().index_fill(0, gone, 0).view_as(old) if name.startswith("encoder.") else old
        assert torch.equal(new, expected)


def test_low_rank_loses_exactly_the_singular_values_that_are_left_out():
    before, after = model(), Work(model())
    told = parsed(["lowrank:0.25"])[0].run(after)
    lost = total = 0.0
    for name in (n for n, m in before.named_modules() if isinstance(m, nn.Linear)):
        old, new = (m.get_submodule(name).weight.detach().double() for m in (before, after.model))
        s = torch.linalg.svdvals(old)
        rank = -(-len(s) // 4)
        assert float((old - new).norm()) == pytest.approx(float(s[rank:].norm()), rel=1e-5)
        assert int(torch.linalg.matrix_rank(new, rtol=1e-5)) == rank
        left, right = after.factors[f"{name}.weight"]
        assert left.numel() + right.numel() < old.numel()
        assert torch.allclose((left @ right).double(), new, atol=1e-6)
        lost, total = lost + float((s[rank:] ** 2).sum()), total + float((s**2).sum())
    assert told["relative error"] == pytest.approx((lost / total) ** 0.5, rel=1e-6)


def test_factors_that_are_no_smaller_are_not_stored():
    work = Work(model())
    told = parsed(["lowrank:0.9"])[0].run(work)
    assert told["as factors"] == len(work.factors) == 0
    own = work.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in work.stored(own).items())


def test_an_int8_tensor_is_wrong_by_half_a_step_at_most_and_zeros_stay_zero():
    torch.manual_seed(0)
    for shape in ((5, 64), (3, 2, 40), (7, 3, 4, 4)):
        value = torch.randn(shape)
        value.view(-1)[::3] = 0
        value[0] = 0
        stored = as_int8("w", value)
        assert stored["w::int8"].dtype == torch.int8 and set(stored) == {"w::int8", "w::scale"}
        back = whole(stored)["w"]
        step = stored["w::scale"].reshape(-1, 1).expand(-1, value.numel() // len(stored["w::scale"])).reshape(shape)
        assert bool(((back - value).abs() <= step / 2 + 1e-7).all()) and bool((back[value == 0] == 0).all())
    short = torch.randn(4, 5)
    assert as_int8("w", short)["w"] is short


def test_int8_is_a_quarter_of_the_bytes_and_hardly_changes_an_answer(run, tmp_path, capsys):
    source = files(run)
    found = compressed(run, tmp_path / "small", "int8")
    assert files(run) == source  # the source is as it was
    size = {side: found[side]["weight_bytes"] for side in ("before", "after")}
    assert size["before"] == (run / "model" / "model.safetensors").stat().st_size
    assert size["after"] == (tmp_path / "small" / "model.safetensors").stat().st_size <= 0.3 * size["before"]
    for line in found["tasks"].values():
        assert 0 < line["feature_change"] < 0.05  # measured .006 to .013
        assert line["after"]["low"] <= line["after"]["value"] <= line["after"]["high"]
        assert set(line["after"]["milliseconds"]) == {"1", "64"}
    assert table(found) in capsys.readouterr().out
    card = (tmp_path / "small" / "README.md").read_text()
    assert "## Compressed" in card and f"{found['tasks']['digits']['after']['value']:.4g}" in card
    metrics = json.loads((run / "metrics.json").read_text())["tasks"]
    assert {n: t["before"]["value"] for n, t in found["tasks"].items()} == {n: t["value"] for n, t in metrics.items()}


def test_all_methods_in_a_row_read_back_by_auto_model_are_what_was_measured(run, tmp_path):
    out = tmp_path / "small"
    found = compressed(run, out, "prune:0.2", "lowrank:0.5", "int8")
    assert [method["method"] for method in found["methods"]] == ["prune", "lowrank", "int8"]
    loaded, processor = AutoModel.from_pretrained(out).eval(), AutoProcessor.from_pretrained(out)
    # what the file says, written out here: the product of the factors, each a product of whole numbers and scales
    raw, state = load_file(out / "model.safetensors"), loaded.state_dict()
    name = next(n.removesuffix("::left::int8") for n in sorted(raw) if n.startswith("enc") and n.endswith("left::int8"))
    left, right = (
        raw[f"{name}::{side}::int8"].float() * raw[f"{name}::{side}::scale"].unsqueeze(1) for side in ("left", "right")
    )
    assert torch.allclose(state[name], left @ right, atol=1e-6) and left.shape[1] == right.shape[0] == 32
    assert all(torch.equal(state[name], value) for name, value in load_folder(out).items())
    assert found["after"]["nonzero"] == sum(int(p.count_nonzero()) for p in loaded.parameters())
    ours, _ = read_model(out)
    same = [m.encode(processor(image=pictures())) for m in (loaded, ours)]
    assert torch.equal(*same)
    # and the ordinary evaluation of the folder says the same
    assert main(["eval", str(out), "embedded:digits", "--task", "digits", "--out", str(tmp_path / "eval")]) == 0
    told = json.loads((tmp_path / "eval" / "result.json").read_text())["measures"]["accuracy"]["value"]
    assert told == pytest.approx(found["tasks"]["digits"]["after"]["value"])
    # saved again it is an ordinary folder
    loaded.save_pretrained(tmp_path / "again")
    with safe_open(tmp_path / "again" / "model.safetensors", "pt") as file:
        assert not any("::" in name for name in file.keys())  # noqa: SIM118
    assert torch.equal(
        AutoModel.from_pretrained(tmp_path / "again").eval().encode(processor(image=pictures())), same[0]
    )


def test_a_model_folder_is_measured_on_data_by_the_tasks_that_read_it(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files(run / "model").items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    words = ["compress", str(folder), "embedded:digits", "--limit", "40", "--method", "prune:0.5"]
    assert main([*words, "--out", str(tmp_path / "small")]) == 0
    found = json.loads((tmp_path / "small" / "compress.json").read_text())
    assert list(found["tasks"]) == ["digits"] and found["tasks"]["digits"]["n"] == 40


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prun:0.3"], "did you mean 'prune'"),
        (["prune"], "prune takes a share between 0 and 1"),
        (["prune:1.5"], "1.5 does not lie between 0 and 1"),
        (["lowrank:0"], "does not lie between 0 and 1"),
        (["prune:nan"], "this key takes float"),
        (["int8:0.5"], "int8 takes no share"),
        (["int8", "prune:0.3"], "as the last method"),
    ],
)
def test_a_wrong_method_is_one_line(words, line):
    with pytest.raises(UserError, match=line):
        parsed(words)


def test_a_wrong_place_is_one_line_and_nothing_is_written(run, tmp_path, capsys):
    def told(*words):
        assert main(["compress", *map(str, words)]) == 2
        return capsys.readouterr().err

    out = tmp_path / "small"
    assert "holds no trained model" in told(tmp_path, "--method", "int8", "--out", out)
    assert "exists already" in told(run, "--method", "int8", "--out", tmp_path)
    assert "own folder" in told(run, "--method", "int8", "--out", run / "model" / "small")
    assert "did you mean 'digits'" in told(run, "--method", "int8", "--out", out, "--task", "digit")
    assert "no task of this model reads" in told(run, "embedded:diabetes", "--method", "int8", "--out", out)
    assert not list(tmp_path.iterdir()) and not (run / "model" / "small").exists()
    shutil.copytree(run / "model", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be read" in told(tmp_path / "cut", "embedded:digits", "--method", "int8", "--out", out)
    assert not out.exists()
    compressed(run, out, "int8")
    assert "compressed already" in told(out, "embedded:digits", "--method", "int8", "--out", tmp_path / "smaller")
