"""Official checkpoints become model folders and come back without a bit changed; broken files end in one line."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generalist.convert.files import load_tensors
from generalist.convert.uni_perceiver import keys
from generalist.convert.uni_perceiver.canonical import canonical
from generalist.convert.uni_perceiver.checkpoint import build, convert, to_official
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from tests.references import UNI_PERCEIVER


def official(
    layers: int = 2, width: int = 12, words: int = 530, patch: int = 2, grid: int = 3
) -> dict[str, torch.Tensor]:
    """A small official state dict of sizes that are all different."""

    def r(*shape: int) -> torch.Tensor:
        return torch.randn(shape)

    out = {
        "token_embed.embeddings.weight": r(words, width),
        "token_embed.embeddings_norm.weight": r(width),
        "token_embed.embeddings_norm.bias": r(width),
        "token_embed.embeddings_pos.position_embeddings.weight": r(7, width),
        "token_embed.embeddings_token_type.weight": r(2, width),
        "video_embed.embeddings.weight": r(width, 3, patch, patch),
        "video_embed.embeddings.bias": r(width),
        "video_embed.embeddings_type.weight": r(1, width),
        "video_embed.embeddings_st_pos.spatial_pos_embed.weight": r(grid * grid, width),
        "video_embed.embeddings_st_pos.temporal_pos_embed.weight": r(5, width),
        "loss_prepare.ln_post.weight": r(width),
        "loss_prepare.ln_post.bias": r(width),
        "loss_prepare.proj.weight": r(width, width),
        "loss_prepare.proj.bias": r(width),
    }
    out |= {f"video_embed.embeddings_norm.{e}": out[f"token_embed.embeddings_norm.{e}"] for e in ("weight", "bias")}
    out |= {f"loss_prepare.logit_scale_{name}": r() for name in keys.SCALES}
    for i in range(layers):
        shapes = {"gamma_1": (width,), "gamma_2": (width,)}
        shapes |= {"self_attn.in_proj_weight": (3 * width, width), "self_attn.in_proj_bias": (3 * width,)}
        shapes |= {"self_attn.out_proj.weight": (width, width), "self_attn.out_proj.bias": (width,)}
        shapes |= {"linear1.weight": (20, width), "linear1.bias": (20,)}
        shapes |= {"linear2.weight": (width, 20), "linear2.bias": (width,)}
        shapes |= {f"norm{n}.{e}": (width,) for n in (1, 2) for e in ("weight", "bias")}
        out |= {f"fused_encoder.layers.{i}.{name}": r(*shape) for name, shape in shapes.items()}
    return out


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    assert not [k for k in a if a[k].shape != b[k].shape or not torch.equal(a[k], b[k])]


@pytest.mark.parametrize("dialect, container", [("torch", "model"), ("deepspeed", "module")])
def test_a_checkpoint_becomes_a_folder_and_comes_back_without_a_bit_changed(tmp_path, dialect, container):
    tensors = official()
    tensors["video_embed.embeddings_type.weight"].zero_()  # a DeepSpeed file's row is folded into the bias
    file = keys.to_deepspeed_dialect(tensors) if dialect == "deepspeed" else tensors
    torch.save({container: file, "iteration": 7}, tmp_path / "in.pth")
    report = convert(tmp_path / "in.pth", tmp_path / "model", heads=3)
    assert (report.missing, report.unexpected, report.reshaped) == ([], [], [])
    convert(tmp_path / "model", tmp_path / "out.pth", dialect=dialect)
    equal(torch.load(tmp_path / "out.pth", weights_only=True)[container], file)


def test_prompts_linear_head_and_bias_come_back_too():
    tensors = official()
    width = 12
    for i in range(2):
        tensors[f"fused_encoder.layers.{i}.{keys.PROMPT}"] = torch.randn(4, width)
        tensors[f"fused_encoder.layers.{i}.{keys.CANDIDATE_PROMPT}"] = torch.randn(4, width)
    tensors["s_token_bias"] = tensors["token_embed.s_token_bias"] = torch.randn(1, width)
    tensors |= {"fc_prompt.weight": torch.randn(5, width), "fc_prompt.bias": torch.randn(5)}
    tensors["similarity_weight"] = torch.tensor(0.3)
    model, _, report, unused = build(tensors, heads=3)
    assert report.unexpected == []
    assert model.config.separate_prompts and model.config.prompts == 4
    equal(to_official(model, unused), tensors)


@pytest.mark.parametrize(("inputs", "candidates"), [(5, 3), (None, 4), (0, 4), (4, 0)])
def test_unequal_prompts_come_in_and_back(inputs, candidates):
    """None: the table is not there at all; 0: it has no row."""
    tensors = official()
    for i in range(2):
        for key, count in ((keys.PROMPT, inputs), (keys.CANDIDATE_PROMPT, candidates)):
            if count is not None:
                tensors[f"fused_encoder.layers.{i}.{key}"] = torch.randn(count, 12)
    model, _, report, unused = build(tensors, heads=3)
    assert report.unexpected == report.missing == []
    assert model.config.prompt_counts == (inputs or 0, candidates)
    first = tensors.get(f"fused_encoder.layers.1.{keys.PROMPT}", torch.zeros(0, 12))
    assert torch.equal(model.prompts.vectors[1], first)
    equal(to_official(model, unused), tensors)


def test_a_mixture_of_experts_comes_back_too():
    file = load_file(UNI_PERCEIVER / "v1_tiny_moe.safetensors")
    tensors = {k[2:]: v for k, v in file.items() if k.startswith("w.")}
    tensors |= {
        f"video_embed.embeddings_norm.{e}": tensors[f"token_embed.embeddings_norm.{e}"] for e in ("weight", "bias")
    }
    model, _, report, unused = build(tensors, heads=4)
    assert report.unexpected == []
    equal(to_official(model, unused), tensors)
    old = keys.to_deepspeed_dialect(tensors)
    assert "encoder.layers.0.attention.self.qkv_proj.deepspeed_moe.gate.wg.weight" in old
    again, _ = canonical(old)
    reference, _ = canonical(tensors)
    equal(again, reference)


def test_the_vision_type_row_of_a_deepspeed_file_is_folded_into_the_patch_bias():
    tensors = official()
    folded = build(keys.to_deepspeed_dialect(tensors), heads=3)[0]
    plain = build(tensors, heads=3)[0]
    row = tensors["video_embed.embeddings_type.weight"][0]
    difference = folded.tokenizers["image"].projection.bias - plain.tokenizers["image"].projection.bias
    torch.testing.assert_close(difference, row)
    forced = build(tensors, heads=3, vision_type="fold")[0]
    torch.testing.assert_close(forced.tokenizers["image"].projection.bias, folded.tokenizers["image"].projection.bias)


def test_position_tables_are_resized_as_the_official_code_does():
    from generalist.tokenizers_mod.vision.films.frames import spatial_table

    tensors = official()
    model, _, report, _ = build(tensors, heads=3, size=10, frames=9)
    image = model.tokenizers["image"]
    torch.testing.assert_close(image.spatial, spatial_table(5, 12, 16.0))  # computed anew: coordinates times 160 / 10
    temporal = tensors["video_embed.embeddings_st_pos.temporal_pos_embed.weight"]
    torch.testing.assert_close(image.temporal.weight[4], temporal[2])  # the middle stays the middle
    assert len(report.reshaped) == 2
    stretched = build(tensors, heads=3, size=10, spatial="interpolate")[0].tokenizers["image"].spatial
    table = tensors["video_embed.embeddings_st_pos.spatial_pos_embed.weight"]
    torch.testing.assert_close(stretched[12], table[4])  # the middle cell


def test_missing_tensors_stop_and_unexpected_ones_are_named(tmp_path):
    tensors = official()
    tensors["something.else"] = torch.ones(2)
    gone = "fused_encoder.layers.1.linear2.bias"
    del tensors[gone]
    with pytest.raises(UserError, match=r"lacks encoder\.layers\.1\.mlp\.down\.bias; --lenient"):
        build(tensors, heads=3)
    report = build(tensors, heads=3, lenient=True)[2]
    assert report.missing == ["encoder.layers.1.mlp.down.bias"] and report.unexpected == ["something.else"]
    tensors[gone] = torch.ones(5)
    with pytest.raises(UserError, match=r"another size.*mlp\.down\.bias \(5,\)"):
        build(tensors, heads=3)


def test_wrapped_names_and_other_entries_are_understood():
    tensors = official()
    wrapped = {f"module.{k}": v for k, v in tensors.items()} | {"extra": torch.ones(1)}
    model, _, report, unused = build(wrapped, heads=3)
    assert report.unexpected == ["extra"]
    equal(to_official(model, unused), tensors)


class Evil:
    """Unpickled by an ordinary reader, this would run a command."""

    def __reduce__(self):
        return os.mkdir, (Evil.where,)

    where = ""


def test_a_hostile_file_is_refused_and_nothing_in_it_runs(tmp_path):
    Evil.where = str(tmp_path / "ran")
    torch.save({"model": official(), "hook": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "plain.pkl"):
        with pytest.raises(UserError) as error:
            load_tensors(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [0, 10, 3000])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_one_clear_line(tmp_path, suffix, cut):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"model": official()}, path)
    else:
        save_file({k: v.clone() for k, v in official().items()}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="fetch it again") as error:
        load_tensors(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"model": {"conv.weight": torch.ones(3)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not a Uni-Perceiver checkpoint"):
        convert(tmp_path / "other.pth", tmp_path / "out")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="no named tensors"):
        convert(tmp_path / "empty.pth", tmp_path / "out")


def test_the_command_converts_and_the_folder_ranks(tmp_path, capsys):
    from generalist.cli import main
    from generalist.hf.processor import GeneralistProcessor

    torch.save({"model": official()}, tmp_path / "in.pth")
    assert (
        main(["convert", "uni-perceiver", str(tmp_path / "in.pth"), "--out", str(tmp_path / "m"), "--heads", "3"]) == 0
    )
    assert "missing: 0" in capsys.readouterr().out
    model = GeneralistModel.from_pretrained(tmp_path / "m").eval()
    processor = GeneralistProcessor.from_pretrained(tmp_path / "m")
    clip = torch.rand(4, 3, 9, 8)
    p = model.rank(processor(video=clip), processor.candidates(["a", "b", "c"]), "video_cls")
    assert p.shape == (1, 3) and p.sum().item() == pytest.approx(1, abs=1e-5)
    still = model.encode(processor(image=clip[0]))
    one_frame = model.encode(processor(video=clip[:1]))
    assert still.shape == one_frame.shape == (1, 12)
    from PIL import Image

    Image.new("RGB", (9, 7), "red").save(tmp_path / "x.png")
    capsys.readouterr()
    asked = [
        "describe",
        str(tmp_path / "m"),
        "--image",
        str(tmp_path / "x.png"),
        "--steps",
        "3",
        "--beam",
        "2",
        "--json",
    ]
    assert main(asked) == 0
    written = json.loads(capsys.readouterr().out)["captions"]
    assert len(written) == 2 and written[0][1] >= written[1][1]
    assert main(["describe", str(tmp_path / "m"), "--image", str(tmp_path / "x.png"), "--task", "captoin"]) == 2
    assert main(["convert", "uni-perceiver", str(tmp_path / "nowhere"), "--out", str(tmp_path / "m")]) == 2
    assert main(["convert", "uniperceiver", "x", "--out", str(tmp_path / "m")]) == 2
    assert "did you mean 'uni-perceiver'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "width, layers, hidden, count, entries",
    [
        (768, 12, 3072, 124_757_003, 195),
        pytest.param(1024, 24, 4096, 355_532_811, 363, marks=pytest.mark.soak),
    ],
)
def test_fresh_base_and_large_models_have_the_official_size_and_survive_the_way_there_and_back(
    width, layers, hidden, count, entries
):
    from generalist.recipes.uni_perceiver import released_config

    model = GeneralistModel(released_config(width=width, layers=layers, heads=width // 64, hidden=hidden))
    out = to_official(model)
    assert len(out) == entries
    assert sum(v.numel() for k, v in out.items() if "video_embed.embeddings_norm" not in k) == count  # an alias
    again = build(dict(out))[0].state_dict()
    state = model.state_dict()
    assert not [k for k in state if k != "log_scales.default" and not torch.equal(state[k], again[k])]


def test_the_checkpoint_path_may_be_a_safetensors_file(tmp_path):
    tensors = official()
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "in.safetensors")
    found, container = load_tensors(Path(tmp_path / "in.safetensors"))
    assert container == ""
    equal(found, tensors)


@pytest.mark.parametrize("scale", [160 / 10, 160 / 224])
@pytest.mark.parametrize("grid", [(3, 5), (5, 3), (2, 2), (1, 4)])
def test_the_grid_of_a_table_that_is_not_square_is_read_from_its_rows(grid, scale):
    from generalist.tokenizers_mod.vision.films.frames import spatial_table

    tensors = official()
    tensors[keys.SPATIAL] = spatial_table(grid, 12, scale)
    model, _, report, _ = build(tensors, heads=3)
    taken = model.modalities["image"]
    assert taken.grid == grid and not [note for note in report.notes if "spatial" in note]
    assert torch.equal(model.tokenizers["image"].spatial, tensors[keys.SPATIAL])
    torch.testing.assert_close(taken.build(12).spatial, tensors[keys.SPATIAL])  # a fresh model has the file's positions


def test_a_table_whose_grid_nothing_tells_is_taken_as_said_or_with_a_line():
    tensors = official()
    tensors[keys.SPATIAL] = torch.randn(15, 12)
    model, _, report, _ = build(tensors, heads=3)
    assert model.modalities["image"].grid == (3, 5) and "3 rows of 5" in " ".join(report.notes)
    model, _, report, _ = build(tensors, heads=3, size=[10, 6])
    assert model.modalities["image"].grid == (5, 3) and "rows of" not in " ".join(report.notes)
    assert report.reshaped == []


def test_another_size_that_is_not_square_is_computed_or_stretched():
    from generalist.tokenizers_mod.vision.films.frames import spatial_table

    tensors = official()
    model, _, report, _ = build(tensors, heads=3, size=[4, 10])
    torch.testing.assert_close(model.tokenizers["image"].spatial, spatial_table((2, 5), 12, 16.0))
    assert report.reshaped == [f"{keys.SPATIAL}: 3 x 3 -> 2 x 5 (formula)"]
    stretched = build(tensors, heads=3, size=[2, 6], spatial="interpolate")[0].tokenizers["image"].spatial
    torch.testing.assert_close(stretched, tensors[keys.SPATIAL][3:6])  # one row: the middle one
