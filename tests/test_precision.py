"""`engine.precision=auto` leaves no trace of what it measured, is kept by a checkpoint; answers in half precision."""

import itertools
import json

import clients
import numpy as np
import pytest
import torch
from PIL import Image
from test_resume import same, stop_at, untimed

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.hf.predict import load_for_asking
from generalist.run import train as run
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.serve.batching import Batcher
from generalist.serve.index import Index, place_of
from generalist.serve.service import Service
from generalist.tasks.kinds.classify import Classify
from generalist.train.checkpoints import checkpoint
from generalist.train.engines import precision
from generalist.train.engines.base import check_precision
from tests.tiny import tiny

KEYS = {"model__drop_path": 0.3}  # draws from the process's own random state


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    monkeypatch.setattr(precision, "LOOKS", 2)


def costs(monkeypatch, fp32: float, bf16: float) -> None:
    """What a pass in each precision is said to cost: the first batch is looked at in fp32 first, the next in bf16."""
    passes = itertools.cycle([fp32, bf16, bf16, fp32])
    ticks = itertools.chain.from_iterable((0.0, cost) for cost in passes)
    monkeypatch.setattr(precision, "clock", lambda device: next(ticks))


def state(folder):
    return torch.load(checkpoint.latest(folder)[1] / "state.pt", weights_only=True)


def test_a_run_that_takes_fp32_is_the_run_in_fp32(tmp_path, monkeypatch, capsys):
    costs(monkeypatch, 1.0, 0.99)
    for kind in ("fp32", "auto"):
        train_run(tiny(engine__precision=kind, **KEYS), tmp_path / kind, quiet=True)
    found = state(tmp_path / "auto")
    assert found.pop("precision") == "fp32"
    assert same(found, state(tmp_path / "fp32")) and untimed(tmp_path / "auto") == untimed(tmp_path / "fp32")
    told = [line for line in capsys.readouterr().err.splitlines() if "precision" in line]
    assert told == ["engine.precision=auto: fp32 is taken (a step costs 1e+03 ms in fp32, 990 ms in bf16)"]


def test_a_resumed_run_keeps_what_it_took(tmp_path, monkeypatch):
    keys = {"engine__precision": "auto", **KEYS}
    costs(monkeypatch, 1.0, 0.5)
    train_run(tiny(**keys), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        costs(monkeypatch, 1.0, 0.5)
        stop_at(6, patch)
        with pytest.raises(Interrupted):
            train_run(tiny(**keys), tmp_path / "parts", quiet=True)
    monkeypatch.setattr(precision, "clock", lambda device: pytest.fail("measured again"))
    train_run(tiny(**keys), tmp_path / "parts", resume=True, quiet=True)
    assert state(tmp_path / "whole")["precision"] == "bf16"
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))
    fp32 = untimed(tmp_path / "whole")
    assert fp32 == untimed(tmp_path / "parts") and len(fp32) == 12


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    out = tmp_path_factory.mktemp("half") / "model"
    model, processor = clients.model_and_processor(scales=["classify"])
    processor.tasks = {"what": Classify(name="what", inputs={"image": "picture"})}
    model.save_pretrained(out)
    processor.save_pretrained(out)
    Image.fromarray(clients.picture(12, 8)).save(out.parent / "a.png")
    return out


@pytest.fixture
def seen(monkeypatch):
    """The number types that linears put out."""
    kinds: set[torch.dtype] = set()
    plain = torch.nn.Linear.forward

    def forward(self, x):
        out = plain(self, x)
        kinds.add(out.dtype)
        return out

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    return kinds


def test_a_prediction_in_half_precision_is_near_that_in_full(home, seen, capsys):
    words = ["predict", str(home), "--image", str(home.parent / "a.png"), "--candidates", "red", "blue", "--json"]
    found = []
    for more, kind in (([], torch.float32), (["--precision", "bf16"], torch.bfloat16)):
        seen.clear()
        assert main([*words, *more]) == 0
        found.append(dict(json.loads(capsys.readouterr().out)["answers"]))
        assert seen == {kind}
    assert found[0] != found[1] and found[0] == pytest.approx(found[1], abs=0.03)
    assert main([*words, "--precision", "int4"]) == 2


def test_an_index_is_asked_in_the_precision_that_it_was_made_in(home, seen, tmp_path):
    model, processor = load_for_asking(home)
    made = Index(tmp_path / "index", model, processor, home.parent, "bf16")
    assert made.update().made >= 1 and seen == {torch.bfloat16} and made.vectors.dtype == np.float32
    assert place_of(tmp_path / "index")[2] == "bf16"
    with pytest.raises(UserError, match="was made with --precision bf16"):
        Index(tmp_path / "index", model, processor, home.parent)
    assert len(Index(tmp_path / "index", model, processor, home.parent, "bf16").items) == len(made.items)


def test_a_service_answers_in_its_precision(home, seen):
    service = Service(home, {}, Batcher(4, 16), "bf16")
    raw = {"image": clients.picture(12, 8)}
    found = service.encode(raw, "input", None).result(60)
    model, processor = load_for_asking(home)
    assert seen == {torch.bfloat16}
    vector = model.encode(processor(image=[raw["image"]]))[0]
    assert float(torch.tensor(found["vector"]) @ vector) > 0.999
    with pytest.raises(UserError, match="int4"):
        Service(home, {}, Batcher(4, 16), "int4")


def test_several_processes_are_told_to_choose():
    with pytest.raises(UserError, match="measures in one process"):
        check_precision("auto", torch.device("cpu"))
