"""Sections of the bench that need a machine's choice, or code that only some have."""

import torch

from generalist.scripts import bench_demo, bench_precision, bench_published, bench_training
from generalist.scripts.bench_training import batches, demo, objective
from generalist.train.engines.flat import Flat

THEIRS = """
from torch import nn
from .norm import Norm

class TransformerEncoderLayer(nn.Module):
    def __init__(self, d_model, cfg, **shape):
        super().__init__()
        assert not cfg.MODEL.PROMPT_EMBED.DEEP_PROMPT and not cfg.SOLVER.FUSED_LAYERNORM
        self.one = nn.Linear(d_model, d_model)
        self.norm = Norm(d_model)

    def forward(self, x, src_key_padding_mask):
        seen.append((tuple(x.shape), src_key_padding_mask is not None))
        return x + self.norm(self.one(x))

seen = []
"""


def test_without_the_published_code_its_section_says_that_it_was_left_out(monkeypatch):
    monkeypatch.delenv(bench_published.WHERE, raising=False)
    (told,) = bench_published.measure(1)
    assert told["what"].startswith("left out: set UNI_PERCEIVER")


def test_the_published_code_is_read_from_the_folder_given_and_padded(tmp_path, monkeypatch):
    place = tmp_path / "uniperceiver" / "modeling" / "layers"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (place / "norm.py").write_text("from torch.nn import LayerNorm as Norm\n")
    (place / "transformer_encoder_layer.py").write_text(THEIRS)
    monkeypatch.setenv(bench_published.WHERE, str(tmp_path))
    monkeypatch.setattr(bench_published, "BATCHES", {"even": [5, 5], "uneven": [3, 6]})
    monkeypatch.setattr(bench_published, "LAYERS", 2)
    found = bench_published.measure(1)
    assert [one["what"].rsplit(", ", 1)[1] for one in found] == ["even", "uneven"]
    assert all(one["ratio"] > 0 and one["cpu_ratio"] > 0 for one in found)
    layer = bench_published.layers_of(tmp_path)
    for lengths, padded in ([5, 5], False), ([3, 6], True):
        bench_published.Published(layer, lengths)()
        assert layer.seen[-1] == ((2, max(lengths), bench_published.WIDTH), padded)


def test_what_auto_takes_is_held_to_the_cheaper_precision(monkeypatch):
    monkeypatch.setattr(bench_precision, "WIDTHS", (32,))
    ratio, auto = bench_precision.measure(1)
    assert ratio["against"] == "fp32" and ratio["ratio"] > 0
    cheaper = "bf16" if ratio["cpu_ratio"] < 1 else "fp32"
    assert auto["taken"] in ("fp32", "bf16")
    assert (auto["least"] == 1.0) == (auto["taken"] == cheaper) and auto["least"] >= 1.0
    assert torch.get_num_threads() == 1


def test_the_demos_step_without_what_saves_time_computes_the_same():
    recipe, prepared = demo(["digits"])
    model, (batch,) = objective(recipe, prepared).eval(), batches(recipe, prepared, 1)["digits"]
    widths = []
    model.model.encoder.layers[-1].mlp.register_forward_hook(lambda own, given, out: widths.append(len(out)))
    saving = model(batch)
    with bench_demo.neither():
        plain = model(batch)
        plain.sum().backward()
        parameters = [p for p in model.parameters() if p.grad is not None]
        states = [{"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)} for p in parameters]
        assert len(Flat().runs(parameters, states, True)) == len(parameters)
    assert len(Flat().runs(parameters, states, True)) == 1
    torch.testing.assert_close(saving, plain, atol=0, rtol=1e-5)
    asked, every = widths  # with the candidates
    assert batch.count <= asked < every / 2 and every >= batch.inputs.tokens
    assert [one["against"] for one in bench_demo.measure(1, ["digits"])] == list(bench_demo.AGAINST.values())


def test_the_start_to_the_first_step_is_timed():
    (line,) = bench_training.start_up()
    assert "failed" not in line and line["seconds"] > 0
