"""`slice` and `distil`: the smaller model is the whole one without what leaves; what stays is refitted; a student."""

import json
import shutil

import numpy as np
import pytest
import torch
from test_at import ragged
from test_compress import compressed, files, pictures
from torch import nn
from transformers import AutoModel, AutoProcessor

from generalist.cli import main
from generalist.compress.methods import parsed
from generalist.compress.ways.refit import Moments, least, rest, watching
from generalist.compress.ways.stems import Stem, narrowed
from generalist.compress.work import Work
from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.hf.saved import read_model
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import LayerSpec
from generalist.run.train import train_run
from generalist.tokenizers_mod.vision.stem import ConvStem
from tests.tiny import tiny

BOTH = [{"kind": "rotary"}, {"kind": "relative", "hidden": 8}]


def encoder(channel: str, **sizes: int) -> Encoder:
    spec = {"width": 24, "layers": 1, "heads": 3, "hidden": 24, "position": BOTH, "local": 3}
    torch.manual_seed(0)
    return Encoder(EncoderSpec(**spec, channel_mixers=channel).with_stack([LayerSpec(channel=channel, **sizes)])).eval()


@pytest.mark.parametrize("channel", ["mlp", "swiglu", "conv_mlp"])
@torch.no_grad()
def test_a_block_without_units_that_nothing_reads_computes_the_same(channel):
    """Head 1 and every third hidden unit have outgoing weights of zero; the cut block has neither."""
    whole = encoder(channel)
    for parameter in whole.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    block = whole.layers[0]
    heads, hidden = torch.tensor([0, 2]), torch.tensor([i for i in range(24) if i % 3])
    block.mixer.out.weight.view(24, 3, 8)[:, 1] = 0
    block.mlp.down.weight[:, ::3] = 0
    cut = encoder(channel, heads=2, head_dim=8, hidden=16)
    own = {f"layers.0.mixer.{k}": v for k, v in block.mixer.cut(heads).items()}
    own |= {f"layers.0.mlp.{k}": v for k, v in block.mlp.cut(hidden).items()}
    cut.load_state_dict(whole.state_dict() | own)
    packed = pack(ragged())
    x = packed.data["x"]["x"][packed.row]
    torch.testing.assert_close(*(one(x, At(packed.layout))[0] for one in (cut, whole)), atol=1e-5, rtol=1e-4)
    assert cut.layers[0].mixer.qkv.weight.shape == (3 * 16, 24)


def test_what_stays_is_the_least_squares_fit_and_the_first_to_go_costs_least():
    torch.manual_seed(1)
    x = torch.randn(4000, 6, dtype=torch.double) @ torch.randn(6, 6, dtype=torch.double) + torch.randn(6).double()
    w, moments = torch.randn(5, 6, dtype=torch.double), Moments()
    moments.add(x[:2500])
    moments.add(x[2500:])
    y = x @ w.T

    def fitted(stays):
        """numpy's least squares with an intercept: weights, intercept and what is lost of the variance."""
        columns = np.concatenate([x[:, stays].numpy(), np.ones((len(x), 1))], 1)
        found, *_ = np.linalg.lstsq(columns, y.numpy(), rcond=None)
        rest = columns @ found - y.numpy()
        return found[:-1].T, found[-1], (rest**2).sum() / ((y - y.mean(0)) ** 2).sum().item()

    kept, weight, bias, lost = least(w, moments, 6, 5)
    alone = [fitted([i for i in range(6) if i != out])[2] for out in range(6)]
    assert sorted({*range(6)} - {*kept.tolist()}) == [int(np.argmin(alone))]
    for count, keep in ((6, 2), (3, 1)):  # single units, and units of two channels
        kept, weight, bias, lost = least(w, moments, count, keep)
        stays = (kept.unsqueeze(1) * (6 // count) + torch.arange(6 // count)).flatten().tolist()
        expected = fitted(stays)
        np.testing.assert_allclose(weight, expected[0], atol=0.02)
        np.testing.assert_allclose(bias, expected[1], atol=0.05)
        assert lost == pytest.approx(expected[2], rel=0.02)


def test_what_pruning_leaves_is_the_least_squares_fit_row_by_row():
    torch.manual_seed(0)
    x = torch.randn(400, 24) @ torch.randn(24, 24)  # inputs that know of each other
    linear = nn.Linear(24, 7)
    with watching([linear]) as (seen,):
        linear(x)
    stays = torch.rand(7, 24) < 0.6
    found = rest(linear.weight, seen, stays)
    assert torch.equal(found != 0, stays)
    centred = (x - x.mean(0)).double()
    for row, mask, own in zip(linear.weight.detach().double(), stays, found, strict=True):
        exact = torch.linalg.lstsq(centred[:, mask], centred @ row).solution
        error, least_of_all = ((centred @ row - centred[:, mask] @ w).square().sum() for w in (own[mask], exact))
        assert error < 1.01 * least_of_all + 1e-9 * (centred @ row).square().sum()
        assert error < (centred @ (row * ~mask)).square().sum()  # of leaving the rest as it is


def test_pruning_with_data_keeps_the_zeros_and_comes_nearer_to_the_source(small_run, tmp_path):
    whole, _ = read_model(small_run / "model")
    found = {}
    for word in ("prune:0.6", "prune:0.6,refit=0"):
        compressed(small_run, tmp_path / word.replace(":", "-"), word)
        found[word], processor = read_model(tmp_path / word.replace(":", "-"))
    fitted, plain = found.values()
    name = "encoder.layers.0.mlp.up"
    zeros = [model.get_submodule(name).weight == 0 for model in (fitted, plain)]
    assert torch.equal(*zeros) and 0.55 < zeros[0].float().mean() < 0.65
    asked = processor(image=pictures(1))
    with torch.no_grad():
        far = [(model.encode(asked) - whole.encode(asked)).square().sum() for model in (fitted, plain)]
    assert far[0] < 0.8 * far[1]


@torch.no_grad()
def test_a_stem_without_channels_that_nothing_reads_computes_the_same():
    torch.manual_seed(0)
    whole = ConvStem(3, 16, 4, 24)
    assert whole.inner() == [(1, 3), (3, 6)]
    for place, dead in ((3, [0, 3]), (6, [1, 2, 4, 7])):
        weight = whole[place].weight
        weight.view(len(weight), 4 if place == 3 else 8, -1)[:, dead] = 0
    pictures = torch.rand(40, 3 * 16 * 16)
    with watching([whole[3], whole[6]]) as moments:
        expected = whole(pictures)
    assert [own.count for own in moments] == [40 * 16, 40]  # a row a window of a convolution
    state, channels, lost = narrowed(Stem("stem", "image", whole), moments, 0.5)
    assert channels == 2 and lost < 1e-6
    thin = ConvStem(3, 16, channels, 24)
    thin.load_state_dict({name.removeprefix("stem."): value for name, value in state.items()})
    torch.testing.assert_close(thin(pictures), expected, atol=1e-3, rtol=1e-3)


def test_a_model_with_a_stem_is_sliced_there_too(tmp_path):
    made = tiny(modalities__image__size=16, modalities__image__patch=16, modalities__image__stem=4)
    made.baseline, made.checkpoint.every = False, 0
    train_run(made, tmp_path / "run", quiet=True)
    for share, channels in (("0", 2), ("1", 4)):
        out = tmp_path / share
        told = compressed(tmp_path / "run", out, f"slice:0.5,stem={share}")["methods"][0]
        model, processor = AutoModel.from_pretrained(out).eval(), AutoProcessor.from_pretrained(out)
        assert model.config.modalities["image"]["stem"] == processor.modalities["image"]["stem"] == channels
        assert json.loads((out / "preprocessor_config.json").read_text())["modality"]["image"]["stem"] == channels
        assert model.tokenizers["image"].projection[3].weight.shape[:2] == (2 * channels, channels)
        assert told.get("image's stem after", 4) == channels
        assert torch.equal(
            model.encode(processor(image=pictures())), read_model(out)[0].encode(processor(image=pictures()))
        )
    mended = compressed(
        tmp_path / "run", tmp_path / "mended", "slice:0.5", "distil:steps=3"
    )  # by a teacher whose stem is whole
    assert mended["methods"][1]["steps"] == 3


def test_a_sliced_model_is_smaller_for_every_client(small_run, tmp_path, capsys):
    source = files(small_run)
    out = tmp_path / "small"
    found = compressed(small_run, out, "slice:0.5,samples=200")
    assert files(small_run) == source
    told = found["methods"][0]
    assert (told["heads before"], told["heads after"]) == (8, 4)
    assert (told["hidden before"], told["hidden after"]) == (256, 128)
    loaded, processor = AutoModel.from_pretrained(out).eval(), AutoProcessor.from_pretrained(out)
    assert [(layer.mixer.heads, layer.mixer.qkv.out_features) for layer in loaded.encoder.layers] == [(2, 96)] * 2
    encoded = loaded.encode(processor(image=pictures()))
    again, _ = read_model(out)
    assert torch.equal(encoded, again.encode(processor(image=pictures())))
    whole, _ = read_model(small_run / "model")
    near = (encoded * whole.encode(processor(image=pictures()))).sum(-1)
    assert near.mean() > 0.8  # measured .97
    for line in found["tasks"].values():  # a linear of the whole costs tokens x in x out; attention and norms less
        assert 0.4 < line["after"]["multiply_adds"] / line["before"]["multiply_adds"] < 0.75
        assert line["after"]["peak_bytes"] < line["before"]["peak_bytes"]
    tensors = processor(images=pictures(), return_tensors="pt")
    assert torch.allclose(
        nn.functional.normalize(loaded.get_image_features(**tensors).pooler_output, dim=-1), encoded, atol=1e-5
    )
    # a recipe that starts from it is planned with its sizes
    sizes = ["model.width=64", "model.layers=2", "model.heads=4", "model.hidden=128"]
    capsys.readouterr()
    assert main(["plan", "tests/tiny.py", f"init={out}", *sizes, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["parameters"] == found["after"]["parameters"] < found["before"]["parameters"]


def test_a_student_of_any_size_learns_from_the_source_and_a_sliced_model_is_mended(small_run, tmp_path):
    found = compressed(small_run, tmp_path / "student", "distil:width=32,layers=1,steps=60")
    model, _ = read_model(tmp_path / "student")
    config, source = model.config, read_model(small_run / "model")[0].config
    assert (config.width, config.layers, config.heads, config.hidden) == (32, 1, 2, 64)
    assert config.modalities == source.modalities and config.tasks == source.tasks
    assert found["methods"][0]["steps"] == 60
    assert found["tasks"]["digits"]["after"]["value"] > 0.4  # measured .75; chance .1
    assert found["after"]["parameters"] < 0.5 * found["before"]["parameters"]
    rough = compressed(small_run, tmp_path / "rough", "slice:0.25,samples=100")
    mended = compressed(small_run, tmp_path / "mended", "slice:0.25,samples=100", "distil:steps=60", "int8")
    assert [one["method"] for one in mended["methods"]] == ["slice", "distil", "int8"]
    scores = [one["tasks"]["digits"]["after"]["value"] for one in (rough, mended)]
    assert scores[1] > scores[0]
    assert mended["after"]["weight_bytes"] < 0.35 * rough["after"]["weight_bytes"]


def test_a_student_begins_with_what_has_the_teachers_size_unless_it_is_to_learn_alone(small_run):
    model, _ = read_model(small_run / "model")
    theirs, equal = model.state_dict(), {}
    for word in ("distil:width=32", "distil:width=32,fresh=1"):
        own = parsed([word])[0].way.student(model, 0).state_dict()
        equal[word] = {name for name, value in own.items() if torch.equal(value, theirs[name])}
    taken = equal["distil:width=32"] - equal["distil:width=32,fresh=1"]
    assert any(name.startswith("log_scales.") for name in taken), equal  # learnt, and of one size in both


def test_data_of_ones_own_teach_and_measure_where_no_recipe_is(small_run, tmp_path):
    shutil.copytree(small_run / "model", tmp_path / "model")
    words = ["compress", str(tmp_path / "model"), "embedded:digits", "--limit", "40", "--method"]
    assert main([*words, "slice:0.5", "distil:steps=3", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "compress.json").read_text())
    assert list(found["tasks"]) == ["digits"] and found["methods"][1]["steps"] == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["slice:2"], "does not lie between 0 and 1"),
        (["slice:0.5,stem=2"], "stem=2"),
        (["slice:0.5,sample=3"], "did you mean 'samples'"),
        (["slice:0.5,0.3"], "is not key=value"),
        (["slice:half"], "share='half': this key takes float"),
        (["distil:width=-3"], "width=-3"),
        (["distil:seconds=0"], "all are positive"),
        (["distil:width=32,width=64"], "given twice"),
        (["prune:0.3,scope=layer"], "scope 'layer'"),
        (["kmeans:0"], "tokens=0"),
        (["spatial:before=-1"], "before=-1"),
        (["search:0.5,parents=1"], "parents lie between"),
    ],
)
def test_a_wrong_setting_is_one_line(words, line):
    with pytest.raises(UserError, match=line) as told:
        parsed(words)
    assert "\n" not in str(told.value)


def test_a_model_that_has_nothing_to_take_out_says_so(small_run):
    model, _ = read_model(small_run / "model")
    for layer in model.encoder.layers:
        layer.mixer.norm = layer.mlp.norm = nn.Identity()
    with pytest.raises(UserError, match="no layer of this model has heads or hidden units"):
        parsed(["slice:0.5"])[0].run(Work(model))
    model.config.steps = [{}]
    with pytest.raises(UserError, match="listed one by one"):
        parsed(["distil:width=32"])[0].way.student(model, 0)


def test_a_path_that_pulls_validation_down_is_dropped_for_every_client(small_run, tmp_path):
    """A second layer whose channel mixer was made to add noise."""
    shutil.copytree(small_run, tmp_path / "run")
    model, processor = read_model(tmp_path / "run" / "model")
    with torch.no_grad():
        model.encoder.layers[1].mlp.down.weight.copy_(3 * torch.randn(64, 128))
    model.save_pretrained(tmp_path / "run" / "model")
    found = compressed(tmp_path / "run", tmp_path / "out", "paths:64")
    told = found["methods"][0]
    assert "layers.1.mlp" in told["dropped"] and told["loss after"] < told["loss"]
    assert found["tasks"]["digits"]["after"]["value"] > found["tasks"]["digits"]["before"]["value"]
    again = AutoModel.from_pretrained(tmp_path / "out").eval()
    if told["dropped"] == "layers.1.mlp":  # the noise is the last branch: without it nothing is left of it
        with torch.no_grad():
            model.encoder.layers[1].mlp.down.weight.zero_()
            model.encoder.layers[1].mlp.down.bias.zero_()
    else:
        model.config.dropped_paths = told["dropped"].split(", ")
    asked = processor(image=pictures())
    torch.testing.assert_close(again.encode(asked), model.encode(asked), atol=1e-5, rtol=1e-4)
