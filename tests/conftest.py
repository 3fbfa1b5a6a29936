"""One thread, fixed seeds and the paths that tests share."""

import os

# Before torch is imported anywhere: thread pools are sized once, and two workers of pytest share the cores. Runs are as
# exact with two threads (tests/test_threads.py); another number of threads rounds differently.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"
for _name in ("COLUMNS", "LINES"):  # pytest's workers name a terminal that is not there
    os.environ.pop(_name, None)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent

# GENERALIST_TYPECHECK=1 checks every annotation (sizes and kinds of tensors, all other types) while the tests run.
if os.environ.get("GENERALIST_TYPECHECK") == "1":
    import typecheck

    typecheck.install()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests keep on disk is not the user's, nor another run's."""
    os.environ["GENERALIST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference tensors and real data beside the project; skips where it was not handed out."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("needs ../shared (reference tensors and data sets), which is not beside this checkout")
    return folder


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of programs that are forks of this process (tests/forked.py)."""
    from forked import programs

    with programs(tmp_path_factory.mktemp("forks") / "programs") as folder:
        yield folder


@pytest.fixture(params=["forked", pytest.param("real", marks=pytest.mark.soak)])
def tools(request: pytest.FixtureRequest) -> Path:
    """The programs on PATH: forks of this process in short, the environment's own in the long tests."""
    from nodes import real_programs

    return request.getfixturevalue("forks") if request.param == "forked" else real_programs()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small saved model with six modalities (tests/clients.py)."""
    import clients

    path = tmp_path_factory.mktemp("model")
    clients.save(path)
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits of four patches and wine, 64 wide, two layers, trained in seconds; not to be written to."""
    from generalist.run.train import train_run
    from tests.tiny import tiny

    out = tmp_path_factory.mktemp("small") / "run"
    sizes = {"model__width": 64, "model__layers": 2, "model__heads": 4, "model__hidden": 128}
    how = {"optimizer__kind": "adamw", "optimizer__lr": 3e-3, "optimizer__warmup": 10}
    made = tiny(**sizes, **how, steps=160, checkpoint__every=0)
    made.baseline, made.tasks[0].share = False, 4.0
    for task in made.tasks:
        task.batch = 32
    train_run(made, out, quiet=True)
    return out
