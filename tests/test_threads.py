"""The same bytes with several threads, run after run: gradients that fall on one row are added in one order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import embedding

from generalist.train.checkpoints import manifest
from generalist.train.checkpoints.checkpoint import latest
from generalist.train.engines.base import one_order

THREADS = [name for name in os.environ if name.endswith("_NUM_THREADS")]


def demo(out: Path) -> subprocess.Popen:
    """The demo's first steps with two threads, in an interpreter whose environment says nothing of threads."""
    words = ["train", "demo", "steps=8", "model.layers=1", "engine.threads=2", "engine.device=cpu", "workers=0"]
    code = "import sys\nfrom generalist.run import train as run\nfrom generalist.cli import main\n"
    code += "run.finish = lambda *a: {}\n"
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    return subprocess.Popen(
        [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *words, "--out", str(out), "--quiet"],
        env=environment | {"OMP_WAIT_POLICY": "PASSIVE"},  # other tests share the cores
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.timeout(600)
def test_two_runs_of_the_demo_with_two_threads_leave_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        process = demo(tmp_path / name)
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said.decode()[-2000:]
    one, two = (manifest.read(latest(tmp_path / name)[1])["files"] for name in ("one", "two"))
    assert len(one) > 10 and one == two


def gradients(look_up: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], times: int = 40) -> int:
    """How many different gradients of one table come out of the same backward pass, two threads at work."""
    torch.manual_seed(0)
    table, index, upstream = torch.randn(16, 96), torch.randint(16, (4000,)), torch.randn(4000, 96)
    found = set()
    for _ in range(times):
        weight = table.clone().requires_grad_()
        look_up(weight, index).backward(upstream)
        assert weight.grad is not None
        found.add(weight.grad.numpy().tobytes())
    return len(found)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_ways_in_which_tables_are_looked_up_are_exact(two_threads):
    assert gradients(lambda weight, index: embedding(index, weight)) == 1
    assert gradients(lambda weight, index: weight.index_select(0, index)) == 1


def test_other_peoples_ways_are_exact_within_a_backward_pass_of_an_engine(two_threads):
    with one_order(torch.device("cpu")):
        assert torch.get_deterministic_debug_mode() == 1
        assert gradients(lambda weight, index: weight[index]) == 1
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_no_table_of_ours_is_indexed_where_its_gradient_would_be_added_in_any_order(monkeypatch, tmp_path):
    """Every modality, task kind, expert and pooling of the golden runs, one backward pass each."""
    import traceback

    import golden

    plain, found = torch.Tensor.__getitem__, set()

    def watched(self: torch.Tensor, index: object) -> torch.Tensor:
        parts = [p for p in (index if isinstance(index, tuple) else (index,)) if isinstance(p, torch.Tensor)]
        if parts and torch.is_grad_enabled() and self.requires_grad and parts[0].dtype == torch.long:
            rows = torch.stack([p.flatten() for p in torch.broadcast_tensors(*parts)], 1)
            if len(rows.unique(dim=0)) < len(rows):
                frame = traceback.extract_stack(limit=2)[0]
                found.add(f"{frame.filename}:{frame.lineno} {frame.line}")
        return plain(self, index)

    monkeypatch.setattr(torch.Tensor, "__getitem__", watched)
    for name, make in golden.RUNS.items():
        (tmp_path / name).mkdir()
        golden.losses(make(tmp_path / name))
    root = str(Path(__file__).resolve().parent.parent)
    assert not [line for line in found if line.startswith(root)], found
