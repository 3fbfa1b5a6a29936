"""`ia_red`: REINFORCE against the exact gradient, masked = taken out, what is kept and what is left as it was."""

import itertools
import json

import pytest
import torch
from test_at import SIZES, ragged
from test_compress import compressed, files, pictures

from generalist.compress.lessons import of_run
from generalist.compress.methods import parsed
from generalist.compress.ways.ia_red import begin, masked, reward, surrogate
from generalist.compress.ways.steps import with_steps
from generalist.compress.work import Work
from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.saved import read_model
from generalist.nn.encoder import Encoder
from generalist.nn.readout import build_pooling
from generalist.nn.steps.keep import Keep
from generalist.nn.taps import Kept
from generalist.recipe.encoder import EncoderSpec


def test_the_sampled_gradient_of_four_tokens_is_the_enumerated_one():
    """Right where token 0 is kept, or tokens 1 and 2 are; 20,000 draws, within 3 standard errors everywhere."""
    logits = torch.tensor([0.3, -0.6, 0.8, 0.0], dtype=torch.double)

    def rewards(u):
        right = ((u[:, 0] > 0) | ((u[:, 1] > 0) & (u[:, 2] > 0))).double()
        return reward(u.sum(1), torch.full((len(u),), 4.0, dtype=torch.double), right, 1.0)

    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.double)
    own = logits.clone().requires_grad_()
    p = own.sigmoid()
    ((every * p + (1 - every) * (1 - p)).prod(1) * rewards(every)).sum().backward()
    count = 20_000
    rows = logits.expand(count, 4).clone().requires_grad_()
    score = rows.sigmoid()
    drawn = (torch.rand(count, 4, dtype=torch.double) < score).double()
    greedy = rewards((logits > 0).double().unsqueeze(0)).expand(count)
    log_p = (drawn * score.log() + (1 - drawn) * (1 - score).log()).sum(1)
    surrogate(log_p, rewards(drawn), greedy, torch.ones(count)).backward()
    each = -rows.grad * count  # ascent, a row a draw
    error = each.std(0) / count**0.5
    assert bool(((each.mean(0) - own.grad).abs() < 3 * error).all())
    assert bool((error < 0.1 * own.grad.abs().max()).all())


def test_an_interpreter_begins_by_keeping_everything():
    keep = Keep(24, 24, share=0, interpreter_heads=3)
    begin(keep)
    packed = pack(ragged())
    score = keep.score(packed.data["x"]["x"][packed.row], At(packed.layout))
    assert score.min().item() > 0.6 and score.mean().item() == pytest.approx(0.8, abs=0.05)


def test_a_finished_model_learns_what_to_drop_and_masked_is_taken_out(small_run, tmp_path):
    source, out = files(small_run), tmp_path / "small"
    found = compressed(small_run, out, "ia_red:steps=12")
    assert files(small_run) == source
    told = found["methods"][0]
    config = json.loads((out / "config.json").read_text())
    shares = [step["stage"]["share"] for step in config["steps"]]
    assert shares == [told["kept by group 0"], told["kept by group 1"]] and all(0 < share <= 1 for share in shares)
    model, processor = read_model(out)
    keeps = [layer for layer in model.encoder.layers if isinstance(layer, Keep)]
    for share in (0.5, 0.0):  # by number, by threshold
        for keep in keeps:
            keep.share = share
        taken = model.encode(processor(image=pictures()))
        with masked(model), torch.no_grad():
            torch.testing.assert_close(model.encode(processor(image=pictures())), taken, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_where_every_token_is_kept_the_model_is_the_one_that_it_was(small_run):
    whole, processor = read_model(small_run / "model")
    work = Work(read_model(small_run / "model")[0])
    stage = {"kind": "keep", "share": 1.0, "interpreter_heads": 4}
    assert with_steps(work, {0: stage, 1: stage}) == [0, 2]
    asked = processor(image=pictures())
    assert torch.equal(work.model.encode(asked), whole.encode(asked))


def test_what_is_dropped_gets_no_gradient():
    torch.manual_seed(0)
    encoder = Encoder(GeneralistConfig(**SIZES)).eval()
    packed = pack(ragged())
    x = packed.data["x"]["x"][packed.row].clone().requires_grad_()
    keep = Keep(24, 24, share=0.5, interpreter_heads=3).eval()
    kept, at = keep(x, At(packed.layout))
    assert len(kept) < len(x)
    for layer in encoder.layers:
        kept, at = layer(kept, at)
    (kept * torch.randn_like(kept)).sum().backward()
    dropped = torch.ones(len(x), dtype=torch.bool)
    first = keep(x, At(packed.layout))[1].origin
    dropped[first] = False
    assert int(dropped.sum()) == len(x) - len(first) > 0
    assert float(x.grad[dropped].abs().max()) == 0 and bool((x.grad[~dropped].abs().amax(1) > 0).all())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ia_red:1.5"], "0 <= share < 1"),
        (["ia_red:by=half"], "by='half'"),
        (["ia_red:groups=-1"], "positive"),
        (["ia_red:tau=-1"], "tau=-1"),
        (["ia_red:steps=0"], "all are positive"),
    ],
)
def test_a_wrong_setting_is_one_line(words, line):
    with pytest.raises(UserError, match=line):
        parsed(words)


def test_a_model_without_maps_or_that_reads_all_its_tokens_is_refused(small_run, tmp_path):
    with pytest.raises(UserError, match="have none; leave it out"):
        refused(small_run, "wine", "ia_red:steps=2")
    model, _ = read_model(small_run / "model")
    model.pooling = build_pooling(EncoderSpec(readout="mean"))
    with pytest.raises(UserError, match="reads all of its tokens"):
        parsed(["ia_red"])[0].run(Work(model))


def refused(run, task, word):
    place = run / "model"
    model, processor = read_model(place)
    parsed([word])[0].run(Work(model, place, lambda: of_run(run, run / "recipe.json", processor, task)))


@pytest.mark.parametrize(("method", "left"), [("spatial:before=1,steps=4", 1), ("kmeans:2,steps=4", 2)])
def test_a_finished_model_is_taught_to_do_with_fewer_tokens(small_run, tmp_path, method, left):
    found = compressed(small_run, tmp_path / "small", method, "--task", "digits")
    model, processor = read_model(tmp_path / "small")
    assert (len(model.encoder.layers), model.config.layers, found["methods"][0]["steps"]) == (3, 2, 4)
    seen = Kept("layers.0", "layers.2")
    with model.tapped(seen):
        assert model.encode(processor(image=pictures())).isfinite().all()
    assert [len(seen[name][0]) for name in ("layers.0", "layers.2")] == [6 * (1 + 4), 6 * (1 + left)]
    with pytest.raises(UserError, match="have none; leave it out"):
        refused(small_run, "wine", method)
